"""What losses of anchor heads share: from a batch to the terms of each sample, in float32 at least."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from multimodal_zoo.bev.head_maps import HeadMaps, HeadRows, head_rows
from multimodal_zoo.objectives.detection_batch import DetectionBatch
from multimodal_zoo.objectives.detection_targets import (
    Objects,
    check_detector,
    check_normaliser,
    head_anchors,
    normaliser,
    objects_of,
    precise_rows,
    sample_rows,
)


class AnchorLoss(nn.Module):
    """A loss of a detector with an anchor head; its parts say what the terms of one sample are.

    Args:
        normalise: a name of `NORMALISERS`: "all" makes several processes train what one trains on all samples.
        legacy_nan_velocity: learn velocities that are not known as they come, as the published training does.
        held: overlaps of objects and anchors that exist at a time; changes memory and speed, not the result.

    Attributes:
        name: what it is registered as, for messages.
        counts: what its sums are divided by, as its metrics call it.

    Raises:
        ValueError: a normaliser that does not exist, a `held` below one.
    """

    name: ClassVar[str]
    counts: ClassVar[str]

    def __init__(self, normalise: str, legacy_nan_velocity: bool, held: int) -> None:
        super().__init__()
        if held < 1:
            raise ValueError(f"objective.held is {held}; it must be 1 at least")
        self.normalise, self.held = check_normaliser(normalise), held
        self.legacy_nan_velocity = legacy_nan_velocity

    def check(self, model: nn.Module) -> None:
        """Refuse a model without an anchor head.

        Raises:
            ValueError: with what it lacks.
        """
        check_detector(model, self.name)

    def forward(self, model: nn.Module, batch: DetectionBatch) -> dict[str, Tensor]:
        """Loss of a batch.

        Returns:
            "loss" and its terms; how much of this process they count; with `normalise="all"` "loss_weight", the same of
            all processes.

        Raises:
            ValueError: boxes or labels that cannot be learned, with the sample's key.
        """
        head: Any = model.head
        objects = objects_of(batch, len(head.class_names), head.anchors.code_size, self.legacy_nan_velocity)
        return self.of_maps(head, model(batch.images, batch.cameras), objects)

    def of_maps(self, head: Any, maps: HeadMaps, objects: Sequence[Objects]) -> dict[str, Tensor]:
        """The same of maps that are there already.

        Args:
            head: gives anchors and direction (`anchor_head`).
            maps: what it said of the batch.
            objects: of each sample.
        """
        with torch.autocast(maps.classes.device.type, enabled=False):
            rows = precise_rows(head_rows(maps, head.anchors.per_cell))
            anchors = head_anchors(head, maps.size, rows.boxes)
            sums = [self.sums(head, anchors, sample_rows(rows, number), one) for number, one in enumerate(objects)]
            count = anchors.new_tensor(self.counted(sums, objects))
            total, processes = normaliser(count, self.normalise)
            found, weight = self.means(sums, total, processes)
        found = {"loss": sum(found.values(), start=torch.zeros_like(total)), **found, self.counts: count}
        return found | ({"loss_weight": weight} if self.normalise == "all" else {})

    @abstractmethod
    def sums(self, head: Any, anchors: Tensor, rows: HeadRows, objects: Objects) -> Any:
        """The terms of one sample, not yet divided.

        Args:
            head: as in `of_maps`.
            anchors: (anchors of the map, 7 or 9).
            rows: without the batch's dimension: classes (anchors of the map, classes), and so on.
            objects: of the sample.
        """

    @abstractmethod
    def counted(self, sums: Sequence[Any], objects: Sequence[Objects]) -> int:
        """What this process's sums are divided by."""

    @abstractmethod
    def means(self, sums: Sequence[Any], total: Tensor, processes: int) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of a batch by name, and what an accumulated batch counts by.

        Args:
            sums: of each sample.
            total: scalar, what they are divided by.
            processes: what they are multiplied by.
        """
