"""Key frames to rows, and rows to a `DetectionBatch`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.bev_augment import BevAugment, BevChange, inside, turned_home
from multimodal_zoo.data.camera_augment import CameraAugment
from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.data.camera_processor import CameraProcessor, CameraSample
from multimodal_zoo.data.camera_truth import Boxes, BoxTruth
from multimodal_zoo.data.collate import PictureTransform
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.objectives.detection_batch import DetectionBatch

#: Key frames drawn in place of one without objects before reading stops.
PATIENCE = 1000


class CameraRow(NamedTuple):
    """One sample before batching, without its pixels.

    Attributes:
        sample: the pictures' calibrations.
        truth: what is learnt.
    """

    sample: CameraSample
    truth: Boxes


class CameraCollate:
    """Turns key frames into rows and rows into a batch, without anything drawn: as a detector is evaluated.

    Args:
        processor: the model's cameras, classes and view.
        truth: which objects are learnt.
        area: least x, y, z, then largest x, y, z of bottom centres that are learnt, in metres; heights do not count.
    """

    def __init__(self, processor: CameraProcessor, truth: BoxTruth, area: Sequence[float]) -> None:
        self.processor, self.truth, self.area = processor, truth, area
        self.image_transform: PictureTransform | None = processor.view  # readers of key frames hold no pixels

    def row(self, scene: Any, random: Random) -> tuple[Tensor, CameraRow]:
        """Pixels uint8 (frames, cameras, 3, height, width) and the row of one key frame.

        Raises:
            ValueError: a picture that is missing or broken, with its file: what is judged must be complete.
        """
        del random
        sample = self.processor.whole(scene.info, scene.root)
        return sample.pixels, CameraRow(sample, self.learnt(scene.info, None))

    def learnt(self, info: SceneInfo, change: BevChange | None) -> Boxes:
        """Objects of the classes inside of the area, after a change of the scene."""
        found = self.truth(info, self.processor.classes)
        found = found.chosen(found.labels >= 0)
        if change is not None:
            found = found._replace(boxes=change.boxes(found.boxes))
        found = found.chosen(inside(found.boxes, self.area))
        return found._replace(boxes=turned_home(found.boxes))

    def text_row(self, scene: Any, random: Random) -> CameraRow:
        """As `row`, without the pixels."""
        return self.row(scene, random)[1]

    def batch(self, pixels: Tensor, rows: Sequence[CameraRow], generator: torch.Generator) -> DetectionBatch:
        """The batch of some rows.

        Args:
            pixels: uint8 (batch, frames, cameras, 3, height, width).
            rows: one for each.
            generator: nothing is drawn.
        """
        del generator
        samples = [row.sample._replace(pixels=one) for row, one in zip(rows, pixels, strict=True)]
        images, cameras = self.processor.joined(samples)
        boxes, labels, known = zip(*(row.truth for row in rows), strict=True)
        return DetectionBatch(images, cameras, boxes, labels, known, tuple(row.sample.key for row in rows))


class AugmentedCameraCollate(CameraCollate):
    """The same for training: pictures and scenes change, unusable samples are left out.

    Args:
        processor: the model's cameras, classes and view.
        truth: which objects are learnt.
        area: as in `CameraCollate`.
        image_augment: drawn for each picture; None for none.
        bev_augment: drawn for each sample; None for none.
        others: reader to draw from in place of key frames without objects, as published; None keeps these.
    """

    def __init__(
        self,
        processor: CameraProcessor,
        truth: BoxTruth,
        area: Sequence[float],
        image_augment: CameraAugment | None,
        bev_augment: BevAugment | None,
        others: Any = None,
    ) -> None:
        super().__init__(processor, truth, area)
        self.image_augment, self.bev_augment, self.others = image_augment, bev_augment, others

    def row(self, scene: Any, random: Random) -> tuple[Tensor, CameraRow]:
        """Pixels uint8 (frames, cameras, 3, height, width) and the row of one key frame, or of another with objects.

        Raises:
            UnusableError: a picture that is missing or broken, or no key frame with objects was found.
        """
        for _ in range(PATIENCE):
            change = None if self.bev_augment is None else self.bev_augment.draw(random)
            truth = self.learnt(scene.info, change)
            if len(truth.boxes) or self.others is None:
                try:
                    sample = self.processor.sample(scene.info, scene.root, random, self.image_augment, change)
                except UnusableError as error:
                    raise UnusableError(error.reason, f"{scene.info.token} ({error.key})") from error
                return sample.pixels, CameraRow(sample, truth)
            scene = self.others[random.randrange(len(self.others))]
        raise UnusableError("no objects", scene.info.token)
