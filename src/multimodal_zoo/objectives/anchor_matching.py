"""Which anchors are assigned to which object, by overlap (Faster R-CNN, arXiv 1506.01497, section 3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.bev.overlaps import aligned_overlaps, nearest_rectangles
from multimodal_zoo.objectives.detection_targets import row_chunks
from multimodal_zoo.registry import OBJECTIVES

#: What anchors have instead of an object's number.
BACKGROUND, IGNORED = -1, -2


class _Best(NamedTuple):
    """What has been seen so far of the objects.

    Attributes:
        overlap: (anchors,), best overlap of each anchor; -1 before any object.
        owner: long (anchors,), the object of it, the first of several.
        claimed: long (anchors,), the last object whose best anchor this is; -1 for none.
    """

    overlap: Tensor
    owner: Tensor
    claimed: Tensor


@OBJECTIVES.register_module(name="anchor_matching")
class AnchorMatching:
    """An anchor gets the object that it overlaps most, if enough; each object gets its best anchors anyway.

    Overlaps are those of the nearest axis-aligned rectangles.

    Args:
        positive: overlap from which an anchor gets its best object.
        negative: overlap below which an anchor is background; or (from, below). Anchors in between are ignored.
        least: overlap from which an object gets its best anchors, whatever other objects they overlap more.
        best_anchors: "all" that overlap an object as much as its best one, the "first" of them, or "none".
        label: only objects of this label; None for all.

    Raises:
        ValueError: an unknown rule.
    """

    def __init__(
        self,
        positive: float = 0.6,
        negative: float | Sequence[float] = 0.3,
        least: float = 0.3,
        best_anchors: str = "all",
        label: int | None = None,
    ) -> None:
        if best_anchors not in ("all", "first", "none"):
            raise ValueError(f"matching.best_anchors is {best_anchors!r}; it takes all, first, none")
        low, high = (0.0, negative) if isinstance(negative, (int, float)) else negative
        self.positive, self.negative, self.least = positive, (float(low), float(high)), least
        self.best_anchors, self.label = best_anchors, label

    @torch.no_grad()
    def __call__(self, anchors: Tensor, boxes: Tensor, labels: Tensor, held: int = 2**21) -> Tensor:
        """The number of each anchor's object, `BACKGROUND` or `IGNORED`, long (anchors,).

        Args:
            anchors: (anchors, 7 or 9), see `bev.boxes`.
            boxes: (objects, 7 or 9); there may be none.
            labels: long (objects,).
            held: overlaps that exist at a time.
        """
        chosen = torch.arange(len(labels), device=labels.device) if self.label is None else self._own(labels)
        if not len(chosen):
            return torch.full((len(anchors),), BACKGROUND, device=anchors.device)
        best = self._best(nearest_rectangles(boxes[chosen]), nearest_rectangles(anchors), held)
        low, high = self.negative
        found = torch.full_like(best.owner, IGNORED)
        found = found.masked_fill((best.overlap >= low) & (best.overlap < high), BACKGROUND)
        found = torch.where(best.overlap >= self.positive, chosen[best.owner], found)
        return torch.where(best.claimed >= 0, chosen[best.claimed.clamp(min=0)], found)

    def _own(self, labels: Tensor) -> Tensor:
        return (labels == self.label).nonzero()[:, 0]

    def _best(self, mine: Tensor, theirs: Tensor, held: int) -> _Best:
        number = torch.arange(len(mine), device=mine.device)
        best = _Best(theirs.new_full((len(theirs),), -1.0), *(number.new_full((len(theirs),), one) for one in (0, -1)))
        for rows in row_chunks(len(mine), len(theirs), held):
            overlaps = aligned_overlaps(mine[rows, None], theirs[None])
            highest, owner = overlaps.max(0)
            higher = highest > best.overlap
            claimed = best.claimed
            if self.best_anchors != "none":
                claimed = torch.maximum(claimed, self._claims(overlaps, number[rows]))
            best = _Best(
                torch.where(higher, highest, best.overlap),
                torch.where(higher, owner + rows.start, best.owner),
                claimed,
            )
        return best

    def _claims(self, overlaps: Tensor, number: Tensor) -> Tensor:
        """The last object of some that has each anchor for its best."""
        top, place = overlaps.max(1, keepdim=True)
        if self.best_anchors == "all":
            mine = overlaps == top
        else:
            mine = torch.zeros_like(overlaps, dtype=torch.bool).scatter(1, place, True)
        return torch.where(mine & (top >= self.least), number[:, None], -1).amax(0)
