"""The data module of camera rigs with boxes, as a part: `camera_detection_data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multimodal_zoo.data.bev_augment import BevAugment
from multimodal_zoo.data.camera_augment import CameraAugment
from multimodal_zoo.data.camera_collate import AugmentedCameraCollate, CameraCollate
from multimodal_zoo.data.camera_processor import CameraProcessor
from multimodal_zoo.data.camera_truth import BoxTruth
from multimodal_zoo.data.order import Order
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.datamodule import ImageTextData


@DATASETS.register_module(name="detection_rules")
class DetectionRules:
    """What is learnt of a key frame, and how it is changed before.

    Args:
        truth: which objects are learnt.
        area: least x, y, z, then largest x, y, z of bottom centres that are learnt, in metres; heights do not count.
        image_augment: drawn for each picture; None for none.
        bev_augment: drawn for each sample; None for none.
        replace_empty: whether key frames without objects give way to random others, as published; without, they are
            learnt from as they are.

    Raises:
        ValueError: an area that runs backwards.
    """

    def __init__(
        self,
        truth: BoxTruth,
        area: Sequence[float],
        image_augment: CameraAugment | None = None,
        bev_augment: BevAugment | None = None,
        replace_empty: bool = False,
    ) -> None:
        if len(area) != 6 or any(low >= high for low, high in zip(area[:3], area[3:], strict=True)):
            raise ValueError(f"data.rules.area is {list(area)}; expected least x, y, z, then largest x, y, z")
        self.truth, self.area = truth, area
        self.image_augment, self.bev_augment, self.replace_empty = image_augment, bev_augment, replace_empty


@DATASETS.register_module(name="camera_detection_data")
def camera_detection_data(
    processor: CameraProcessor,
    train: Any,
    batch_size: int,
    rules: DetectionRules,
    order: Order,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> ImageTextData:
    """A LightningDataModule that gives batches of camera rigs with boxes (`DetectionBatch`).

    Order, ranks and resuming are those of `image_text_data`. A training sample with a broken picture is left out,
    counted and named; one of validation is an error.

    Args:
        processor: the model's cameras, classes, view and history.
        train: reader of key frames (`nuscenes_scenes`, `camera_info_file`).
        batch_size: key frames in a batch, for each rank.
        rules: what is learnt of a key frame.
        order: order of the training key frames (`balanced_order`, `shuffled_order`).
        validation: reader of key frames seen in order, nothing drawn.
        workers: processes that read; 0 reads in this one.
        seed: of order, augmentation and drawn histories.

    Raises:
        ValueError: a batch size below 1.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.datamodule import ImageTextData

    others = train if rules.replace_empty else None
    return ImageTextData(
        train=train,
        validation=validation,
        collate=AugmentedCameraCollate(
            processor, rules.truth, rules.area, rules.image_augment, rules.bev_augment, others
        ),
        plain=CameraCollate(processor, rules.truth, rules.area),
        order=order,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
