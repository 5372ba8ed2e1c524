"""From what a head says of anchors to the objects of a scene (as Fast-BEV does it, arXiv 2301.12511)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.bev.anchors import AnchorGrid
from multimodal_zoo.bev.box_coder import YawHalves, decode
from multimodal_zoo.bev.boxes import YAW
from multimodal_zoo.bev.head_maps import HeadMaps, HeadRows, head_rows
from multimodal_zoo.registry import BEV

#: boxes (n, 7 or 9) and scores (n,) of one class -> numbers of those that stay, by falling score
Suppression = Callable[[Tensor, Tensor], Tensor]


class Detections(NamedTuple):
    """The objects of one sample.

    Attributes:
        boxes: float (n, 7 or 9), see `bev.boxes`.
        scores: (n,), in [0, 1].
        labels: long (n,).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


class Candidates(NamedTuple):
    """The best anchors of one sample.

    Attributes:
        boxes: (n, 7 or 9), decoded.
        scores: (n, classes).
        halves: long (n,), of the yaw; None where the head does not say.
    """

    boxes: Tensor
    scores: Tensor
    halves: Tensor | None


@BEV.register_module(name="box_selection")
class BoxSelection:
    """Best anchors, then classes above a score, then suppression within each class, then the best of all.

    An anchor may give several classes. Objects come class by class, each by falling score; where there are more than
    `limit`, the best of them by falling score.

    Args:
        suppressions: one for each class, or a single one for all.
        score_threshold: only scores above it count.
        candidates: how many anchors of the highest best score are decoded; 0 for all.
        limit: how many objects there are at most.

    Raises:
        ValueError: no suppression, a negative number of candidates, a limit below one.
    """

    def __init__(
        self,
        suppressions: Sequence[Suppression],
        score_threshold: float = 0.05,
        candidates: int = 1000,
        limit: int = 500,
    ) -> None:
        if not suppressions or candidates < 0 or limit < 1:
            raise ValueError(
                f"selection.suppressions has {len(suppressions)} entries, candidates is {candidates}, limit {limit}; "
                "expected one or more, 0 or more, 1 or more"
            )
        self.suppressions, self.score_threshold = list(suppressions), float(score_threshold)
        self.candidates, self.limit = candidates, limit

    def __call__(
        self, passes: Sequence[HeadMaps], anchors: AnchorGrid, direction: YawHalves | None
    ) -> list[Detections]:
        """The objects of each sample; those of several passes over one batch compete with each other.

        Args:
            passes: maps of the head, of the same batch.
            anchors: of the head.
            direction: of the head; None where it tells no halves of the yaw.
        """
        found = [self._candidates(maps, anchors) for maps in passes]
        return [self._of_sample([one[number] for one in found], direction) for number in range(len(found[0]))]

    def _candidates(self, maps: HeadMaps, anchors: AnchorGrid) -> list[Candidates]:
        rows, precise = head_rows(maps, anchors.per_cell), torch.promote_types(maps.boxes.dtype, torch.float32)
        grid = anchors.boxes(maps.size, maps.boxes.device, precise)
        return [self._best(rows, number, grid) for number in range(len(maps.classes))]

    def _best(self, rows: HeadRows, number: int, grid: Tensor) -> Candidates:
        scores, deltas = rows.classes[number].to(grid.dtype).sigmoid(), rows.boxes[number].to(grid.dtype)
        halves = None if rows.directions is None else rows.directions[number].argmax(-1)
        if 0 < self.candidates < len(grid):
            best = scores.amax(1).topk(self.candidates).indices
            scores, deltas, grid = scores[best], deltas[best], grid[best]
            halves = None if halves is None else halves[best]
        return Candidates(decode(grid, deltas), scores, halves)

    def _of_sample(self, parts: Sequence[Candidates], direction: YawHalves | None) -> Detections:
        boxes, scores = torch.cat([one.boxes for one in parts]), torch.cat([one.scores for one in parts])
        rows, labels = self.chosen(boxes, scores)
        found = boxes[rows]
        if direction is not None:
            halves = torch.cat([one.halves for one in parts if one.halves is not None])
            found[:, YAW] = direction.resolve(found[:, YAW], halves[rows])
        return Detections(found, scores[rows, labels], labels)

    def chosen(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Row and class, long (k,), of each object, in their order.

        Args:
            boxes: (n, 7 or 9), decoded; n may be 0. Half a turn in their yaws changes nothing.
            scores: (n, classes).

        Raises:
            ValueError: another number of classes than of suppressions.
        """
        classes = scores.shape[1]
        if len(self.suppressions) not in (1, classes):
            raise ValueError(
                f"selection.suppressions has {len(self.suppressions)} entries; expected 1, or {classes} as classes"
            )
        rows, labels = [], []
        for label in range(classes):
            above = (scores[:, label] > self.score_threshold).nonzero()[:, 0]
            suppression = self.suppressions[label if len(self.suppressions) > 1 else 0]
            rows.append(above[suppression(boxes[above], scores[above, label])])
            labels.append(torch.full_like(rows[-1], label))
        row, label_of = torch.cat(rows), torch.cat(labels)
        if len(row) > self.limit:
            best = scores[row, label_of].argsort(descending=True, stable=True)[: self.limit]
            row, label_of = row[best], label_of[best]
        return row, label_of
