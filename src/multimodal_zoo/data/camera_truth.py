"""Boxes and labels as a detector's loss receives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import VX, VY
from multimodal_zoo.data.camera_infos import SceneInfo, SceneObjects
from multimodal_zoo.registry import DATASETS

#: Which objects are learnt.
KEEP = ("lidar_points", "valid_flag")
#: What velocities are relative to.
VELOCITY = ("absolute", "relative")
#: What happens to velocities that nobody knows.
UNKNOWN = ("masked", "legacy")


class Boxes(NamedTuple):
    """What is learnt of one sample.

    Attributes:
        boxes: float32 (n, 9), rows of `bev.boxes`, finite.
        labels: long (n,); -1 for none of the classes.
        velocity_known: bool (n,).
    """

    boxes: Tensor
    labels: Tensor
    velocity_known: Tensor

    def chosen(self, mask: Tensor) -> Boxes:
        """Some of the objects."""
        return Boxes(self.boxes[mask], self.labels[mask], self.velocity_known[mask])


def kept_objects(objects: SceneObjects, keep: str) -> np.ndarray:
    """Bool (n,): objects that are learnt.

    Args:
        objects: all.
        keep: `lidar_points`, those with a point of the LiDAR; `valid_flag`, those that the source calls valid.

    Raises:
        ValueError: another word.
    """
    if keep not in KEEP:
        raise ValueError(f"data.rules.truth.keep is {keep!r}; expected one of {', '.join(KEEP)}")
    return objects.num_lidar_pts > 0 if keep == "lidar_points" else objects.valid


@DATASETS.register_module(name="box_truth")
class BoxTruth:
    """Which objects are learnt, and with which velocity.

    Args:
        keep: `lidar_points`, objects with a point of the LiDAR, as published; `valid_flag`, with one of LiDAR or radar.
        velocity: `absolute`, or `relative` to the car's own.
        unknown_velocity: `masked`, not learnt; `legacy`, learnt as standing still relative to the car, as published.

    Raises:
        ValueError: other words.
    """

    def __init__(
        self, keep: str = "lidar_points", velocity: str = "absolute", unknown_velocity: str = "masked"
    ) -> None:
        for name, value, known in (
            ("keep", keep, KEEP),
            ("velocity", velocity, VELOCITY),
            ("unknown_velocity", unknown_velocity, UNKNOWN),
        ):
            if value not in known:
                raise ValueError(f"data.rules.truth.{name} is {value!r}; expected one of {', '.join(known)}")
        self.keep, self.velocity, self.unknown = keep, velocity, unknown_velocity

    def __call__(self, info: SceneInfo, classes: Sequence[str]) -> Boxes:
        """Objects of a key frame, those of no class among them; none where nothing was annotated.

        Args:
            info: the key frame.
            classes: names of the labels.

        Raises:
            ValueError: boxes that are not finite or have no size, with the key frame.
        """
        if info.objects is None:
            return Boxes(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))
        kept = kept_objects(info.objects, self.keep)
        boxes = info.objects.boxes[kept].astype(np.float64)
        _check(boxes, info.token)
        known = np.isfinite(boxes[:, VX]) & np.isfinite(boxes[:, VY])
        velocity = boxes[:, [VX, VY]] - (info.ego_velocity if self.velocity == "relative" else 0.0)
        still = info.ego_velocity if self.velocity == "absolute" and self.unknown == "legacy" else 0.0
        boxes[:, [VX, VY]] = np.where(known[:, None], velocity, still)
        names = [name for name, one in zip(info.objects.names, kept, strict=True) if one]
        places = {name: number for number, name in enumerate(classes)}
        return Boxes(
            torch.from_numpy(boxes).float(),
            torch.tensor([places.get(name, -1) for name in names], dtype=torch.long),
            torch.from_numpy(known | (self.unknown == "legacy")),
        )


def _check(boxes: np.ndarray, token: str) -> None:
    wrong = ~np.isfinite(boxes[:, :7]).all(axis=1) | (boxes[:, 3:6] <= 0).any(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"sample {token}: box {row} is {boxes[row].tolist()}; expected finite x, y, z, w, l, h, yaw and sizes "
            "above 0"
        )
