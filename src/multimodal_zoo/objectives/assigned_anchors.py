"""The loss that the text of Fast-BEV describes (arXiv 2301.12511): anchors assigned to objects by overlap.

As PointPillars and SECOND train. The published configurations build it and train the bags of `free_anchor` instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.bev.box_coder import encode
from multimodal_zoo.bev.boxes import YAW
from multimodal_zoo.bev.head_maps import HeadRows
from multimodal_zoo.objectives.anchor_loss import AnchorLoss
from multimodal_zoo.objectives.anchor_matching import IGNORED, AnchorMatching
from multimodal_zoo.objectives.box_distance import BoxDistance
from multimodal_zoo.objectives.detection_targets import Objects
from multimodal_zoo.registry import OBJECTIVES


class AssignedSums(NamedTuple):
    """Sums over the anchors of one sample.

    Attributes:
        classes: scalar, weighted focal loss of all anchors that are not ignored.
        boxes: scalar, distances of anchors with an object.
        directions: scalar, cross-entropy of the halves of their yaw.
        positives: how many anchors have an object; 1 where none has.
    """

    classes: Tensor
    boxes: Tensor
    directions: Tensor
    positives: int


@OBJECTIVES.register_module(name="assigned_anchors")
class AssignedAnchors(AnchorLoss):
    """Focal loss of the classes, and distances and directions of anchors that an object was assigned to.

    All are divided by the number of these anchors, 1 at least for each sample. It runs in float32 at least, also under
    autocast; batches without any object are valid.

    Args:
        box: distance of boxes (`box_distance`).
        matchings: which anchors get which object (`anchor_matching`): one for all, or one for each size of anchors.
        gamma: power of the focusing factor (focal loss, arXiv 1708.02002, section 3.2).
        alpha: weight of objects in it; background has the rest.
        class_weight: factor on the focal loss.
        positive_weight: further factor on it for anchors with an object.
        direction_weight: factor on the cross-entropy of the yaw's half.
        normalise: a name of `NORMALISERS`: "all" makes several processes train what one trains on all samples.
        legacy_nan_velocity: learn velocities that are not known as they come, as the published training does.
        held: overlaps of objects and anchors that exist at a time; changes memory and speed, not the result.

    Raises:
        ValueError: a normaliser that does not exist, no matching, a `held` below one.
    """

    name = "assigned_anchors"
    counts = "positives"

    def __init__(
        self,
        box: BoxDistance,
        matchings: Sequence[AnchorMatching],
        gamma: float = 2.0,
        alpha: float = 0.25,
        class_weight: float = 1.0,
        positive_weight: float = 1.0,
        direction_weight: float = 0.8,
        normalise: str = "all",
        legacy_nan_velocity: bool = False,
        held: int = 2**21,
    ) -> None:
        super().__init__(normalise, legacy_nan_velocity, held)
        if not matchings:
            raise ValueError("objective.matchings has 0 entries; expected 1, or one for each size of anchors")
        self.box, self.matchings, self.gamma, self.alpha = box, list(matchings), gamma, alpha
        self.class_weight, self.positive_weight, self.direction_weight = class_weight, positive_weight, direction_weight

    def check(self, model: nn.Module) -> None:
        """Refuse a model without an anchor head, or with another number of sizes of anchors than of matchings.

        Raises:
            ValueError: with what does not fit.
        """
        super().check(model)
        head: Any = model.head
        if len(self.matchings) not in (1, len(head.anchors.sizes)):
            raise ValueError(
                f"objective.matchings has {len(self.matchings)} entries; expected 1, or {len(head.anchors.sizes)}: the "
                "head's anchors have so many sizes"
            )

    def counted(self, sums: Sequence[AssignedSums], objects: Sequence[Objects]) -> int:
        """How many anchors have an object; 1 at least for each sample."""
        return sum(one.positives for one in sums)

    def means(self, sums: Sequence[AssignedSums], total: Tensor, processes: int) -> tuple[dict[str, Tensor], Tensor]:
        """The terms "classes", "boxes" and "directions"."""
        terms = {
            name: torch.stack([getattr(one, name) for one in sums]).sum() * processes / total
            for name in ("classes", "boxes", "directions")
        }
        return terms, total

    def sums(self, head: Any, anchors: Tensor, rows: HeadRows, objects: Objects) -> AssignedSums:
        """See `AnchorLoss`."""
        assigned = self.assigned(head, anchors, objects)
        places = (assigned >= 0).nonzero()[:, 0]
        owners = assigned[places]
        target = encode(anchors[places], objects.boxes.to(anchors.dtype)[owners])
        boxes = self.box(rows.boxes[places], target, objects.counted.to(anchors.dtype)[owners]).sum()
        classes = self.class_weight * self._focal(rows.classes, assigned, places, objects.labels[owners])
        directions = anchors.new_zeros(())
        if rows.directions is not None:
            halves = head.direction.target(target[:, YAW] + anchors[places, YAW])
            crossed = F.cross_entropy(rows.directions[places], halves, reduction="sum")
            directions = self.direction_weight * crossed
        return AssignedSums(classes, boxes, directions, max(len(places), 1))

    @torch.no_grad()
    def assigned(self, head: Any, anchors: Tensor, objects: Objects) -> Tensor:
        """The number of each anchor's object, `BACKGROUND` or `IGNORED`, long (anchors of the map,).

        Args:
            head: gives the sizes of the anchors.
            anchors: (anchors of the map, 7 or 9).
            objects: of the sample.
        """
        boxes = objects.boxes.to(anchors.dtype)
        if len(self.matchings) == 1:
            return self.matchings[0](anchors, boxes, objects.labels, self.held)
        by_size = anchors.unflatten(0, (-1, len(head.anchors.sizes), len(head.anchors.rotations)))
        parts = [
            one(by_size[:, number].flatten(0, 1), boxes, objects.labels, self.held).view(len(by_size), -1)
            for number, one in enumerate(self.matchings)
        ]
        return torch.stack(parts, dim=1).flatten()

    def _focal(self, logits: Tensor, assigned: Tensor, places: Tensor, labels: Tensor) -> Tensor:
        """Sum of the focal loss of all classes of the anchors that are not ignored."""
        target = torch.zeros_like(logits)
        target[places, labels] = 1.0
        share = logits.sigmoid()
        missed = (1 - share) * target + share * (1 - target)
        weight = self.alpha * target + (1 - self.alpha) * (1 - target)
        each = weight * missed**self.gamma * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        counted = (assigned != IGNORED).to(logits.dtype)
        counted[places] = self.positive_weight
        return (each.sum(1) * counted).sum()
