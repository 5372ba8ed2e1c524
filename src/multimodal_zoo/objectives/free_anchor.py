"""Learning to match anchors: the loss of bags that Fast-BEV trains with (FreeAnchor, arXiv 1909.02466)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.bev.box_coder import decode, encode
from multimodal_zoo.bev.boxes import YAW
from multimodal_zoo.bev.head_maps import HeadRows
from multimodal_zoo.bev.overlaps import aligned_overlaps, nearest_rectangles
from multimodal_zoo.objectives.anchor_loss import AnchorLoss
from multimodal_zoo.objectives.box_distance import BoxDistance
from multimodal_zoo.objectives.detection_targets import Objects, row_chunks
from multimodal_zoo.registry import OBJECTIVES


class BagSums(NamedTuple):
    """Sums over the objects and anchors of one sample.

    Attributes:
        positive: scalar, weighted by `alpha`.
        negative: scalar, weighted by `1 - alpha`.
    """

    positive: Tensor
    negative: Tensor


@OBJECTIVES.register_module(name="free_anchor")
class FreeAnchor(AnchorLoss):
    """Each object has a bag of anchors, one of which at least must find it; every other anchor must find nothing.

    The likelihood of an object is the mean of those of its bag, weighted towards the best; an anchor counts as finding
    nothing as far as its decoded box overlaps no object of the class. All of it runs in float32 at least, also under
    autocast. Batches without any object are valid.

    Args:
        box: distance of boxes (`box_distance`).
        bag: anchors of an object, those of highest overlap.
        threshold: overlap up to which a decoded box does not find an object (published `bbox_thr`).
        gamma: power of the focusing factor of the negative term.
        alpha: weight of the positive term; the negative one has the rest.
        direction_weight: factor on the cross-entropy of the yaw's half.
        normalise: a name of `NORMALISERS`: "all" makes several processes train what one trains on all samples.
        legacy_nan_velocity: learn velocities that are not known as they come, as the published training does.
        held: overlaps of objects and anchors that exist at a time; changes memory and speed, not the result.

    Raises:
        ValueError: a normaliser that does not exist, a bag or `held` below one.
    """

    name = "free_anchor"
    counts = "objects"

    def __init__(
        self,
        box: BoxDistance,
        bag: int = 25,
        threshold: float = 0.5,
        gamma: float = 2.0,
        alpha: float = 0.5,
        direction_weight: float = 0.8,
        normalise: str = "all",
        legacy_nan_velocity: bool = False,
        held: int = 2**21,
    ) -> None:
        super().__init__(normalise, legacy_nan_velocity, held)
        if bag < 1:
            raise ValueError(f"objective.bag is {bag}; it must be 1 at least")
        self.box, self.bag, self.threshold, self.gamma, self.alpha = box, bag, threshold, gamma, alpha
        self.direction_weight = direction_weight

    def counted(self, sums: Sequence[BagSums], objects: Sequence[Objects]) -> int:
        """How many objects there are."""
        return sum(len(one.labels) for one in objects)

    def means(self, sums: Sequence[BagSums], total: Tensor, processes: int) -> tuple[dict[str, Tensor], Tensor]:
        """The terms "positive" and "negative"."""
        positive = torch.stack([one.positive for one in sums]).sum() * processes / total.clamp_min(1)
        negative = torch.stack([one.negative for one in sums]).sum() * processes / (total * self.bag).clamp_min(1)
        # without objects the sum of the negative term is divided by one, not by the size of a bag
        return {"positive": positive, "negative": negative}, total.clamp_min(1 / self.bag)

    def sums(self, head: Any, anchors: Tensor, rows: HeadRows, objects: Objects) -> BagSums:
        """See `AnchorLoss`."""
        shares = rows.classes.sigmoid()
        found = self.found(anchors, rows.boxes, objects, shares.shape[1])
        matched = self.bags(anchors, objects)
        box = (-self._distances(head, anchors[matched], matched, rows, objects)).exp()
        labels = objects.labels[:, None, None].expand(*matched.shape, 1)
        likelihood = shares[matched].gather(2, labels).squeeze(2) * box
        positive = self.alpha * _log_loss(_mean_max(likelihood), 1.0).sum()
        wrong = (shares * (1 - found)).clamp(0, 1)
        negative = (1 - self.alpha) * (wrong**self.gamma * _log_loss(wrong, 0.0)).sum()
        return BagSums(positive, negative)

    @torch.no_grad()
    def bags(self, anchors: Tensor, objects: Objects) -> Tensor:
        """Numbers `(objects, bag)` of the anchors that overlap each object most; all where there are fewer."""
        mine, theirs = nearest_rectangles(objects.boxes.to(anchors.dtype)), nearest_rectangles(anchors)
        size = min(self.bag, len(anchors))
        parts = [objects.labels.new_zeros(0, size)]
        for rows in row_chunks(len(mine), len(theirs), self.held):
            overlaps = aligned_overlaps(mine[rows, None], theirs[None])
            parts.append(overlaps.topk(size, dim=1, sorted=False).indices)
        return torch.cat(parts)

    @torch.no_grad()
    def found(self, anchors: Tensor, deltas: Tensor, objects: Objects, classes: int) -> Tensor:
        """How far each anchor's box finds an object of each class, `(anchors of the map, classes)` in [0, 1].

        The overlap above the threshold, relative to the best overlap that any box has with the object. An object that
        no box overlaps above the threshold is found by none: there the published quotient is 0 / 0 where the best
        overlap is exactly the threshold, and training stopped.

        Args:
            anchors: (anchors of the map, 7 or 9).
            deltas: the same shape, what the head says.
            objects: of the sample.
            classes: number of classes.
        """
        theirs = nearest_rectangles(decode(anchors, deltas))
        all_of_mine = nearest_rectangles(objects.boxes.to(anchors.dtype))
        found = theirs.new_zeros(classes, len(theirs))
        for label in objects.labels.unique().tolist():
            mine = all_of_mine[objects.labels == label]
            for rows in row_chunks(len(mine), len(theirs), self.held):
                overlaps = aligned_overlaps(mine[rows, None], theirs[None])
                span = overlaps.amax(1, keepdim=True).clamp(min=self.threshold + 1e-12) - self.threshold
                share = overlaps.sub_(self.threshold).div_(torch.where(span > 0, span, torch.inf)).clamp_(0, 1)
                torch.maximum(found[label], share.amax(0), out=found[label])
        return found.T

    def _distances(self, head: Any, anchors: Tensor, matched: Tensor, rows: HeadRows, objects: Objects) -> Tensor:
        """Distance `(objects, bag)` of what each anchor of a bag says from the object."""
        target = encode(anchors, objects.boxes.to(anchors.dtype)[:, None])
        found = self.box(rows.boxes[matched], target, objects.counted.to(anchors.dtype)[:, None])
        if rows.directions is None:
            return found
        halves = head.direction.target(target[..., YAW] + anchors[..., YAW])
        crossed = F.cross_entropy(rows.directions[matched].mT, halves, reduction="none")
        return found + self.direction_weight * crossed


def _mean_max(likelihood: Tensor) -> Tensor:
    """Mean over each bag with weights `1 / (1 - p)`: near the maximum once an anchor is good, near the mean before.

    Gradients go through the weights too.
    """
    weight = 1 / (1 - likelihood).clamp_min(1e-12)
    return (weight / weight.sum(1, keepdim=True) * likelihood).sum(1).clamp(0, 1)


def _log_loss(share: Tensor, target: float) -> Tensor:
    """Cross-entropy of shares in [0, 1] with one target, at most 100 each; NaN stays NaN instead of an abort."""
    lost = share.isnan()
    known = share.masked_fill(lost, 0.5)
    found = F.binary_cross_entropy(known, torch.full_like(known, target), reduction="none")
    return torch.where(lost, share, found)
