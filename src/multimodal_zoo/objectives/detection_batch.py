"""The batch of detectors in bird's-eye view: pictures of several cameras and times, and boxes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.movable import moved, pinned


@dataclass
class DetectionBatch:
    """Scenes with their boxes.

    Attributes:
        images: float (batch, frames, cameras, 3, height, width), normalised; the current frame first.
        cameras: where points fall in them.
        boxes: for each sample (n, 9) in the layout of `bev.boxes`, n may be 0.
        labels: for each sample long (n,), classes.
        velocity_known: for each sample bool (n,), False where the velocity of a box is not known.
        keys: name of each sample, for error messages and reports.

    Raises:
        ValueError: fields that do not fit each other, or boxes that are not finite, with the sample.
    """

    to, pin_memory = moved, pinned

    images: Tensor
    cameras: Cameras
    boxes: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]
    velocity_known: tuple[Tensor, ...]
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        fields = ("images", "cameras", "boxes", "labels", "velocity_known", "keys")
        rows = {name: len(getattr(self, name)) for name in fields}
        if len(set(rows.values())) != 1:
            raise ValueError(f"DetectionBatch needs as many samples in every field, not {rows}")
        if self.images.dim() != 6 or self.images.shape[:3] != self.cameras.lidar_to_image.shape[:3]:
            raise ValueError(
                f"images of shape {tuple(self.images.shape)} for cameras "
                f"{tuple(self.cameras.lidar_to_image.shape[:3])}; expected (batch, frames, cameras, 3, height, width)"
            )
        for key, boxes, labels, known in zip(self.keys, self.boxes, self.labels, self.velocity_known, strict=True):
            if boxes.dim() != 2 or boxes.shape[1] != 9 or not len(boxes) == len(labels) == len(known):
                raise ValueError(
                    f"sample {key}: boxes {tuple(boxes.shape)}, labels {tuple(labels.shape)}, velocity_known "
                    f"{tuple(known.shape)}; expected (n, 9), (n,) and (n,)"
                )
            if may_look(boxes) and not bool(boxes.isfinite().all()):
                raise ValueError(f"sample {key}: boxes hold numbers that are not finite: {boxes.tolist()}")

    def __len__(self) -> int:
        return len(self.images)
