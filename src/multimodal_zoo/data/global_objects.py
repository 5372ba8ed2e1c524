"""Annotated objects of one sample in the frame of the map, as detection benchmarks compare them with detections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class GlobalObjects:
    """Objects of nuScenes' tables (`sample_annotation`), in their order.

    Attributes:
        names: class of each.
        translation: float64 (n, 3), centres of gravity, metres.
        size: float64 (n, 3), width, length, height, metres, all above 0.
        rotation: float64 (n, 4), quaternions w, x, y, z.
        velocity: float64 (n, 2), metres per second; NaN where it is not known.
        attributes: name of each object's attribute, "" where it has none.
        points: int64 (n,), LiDAR and RADAR points inside together; objects of none are here too.

    Raises:
        ValueError: arrays of other shapes, numbers that are not finite (velocities may be NaN), sizes that are not
            above 0, quaternions of length 0.
    """

    names: tuple[str, ...]
    translation: np.ndarray
    size: np.ndarray
    rotation: np.ndarray
    velocity: np.ndarray
    attributes: tuple[str, ...]
    points: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.names)
        for name, columns in (("translation", 3), ("size", 3), ("rotation", 4), ("velocity", 2)):
            array = getattr(self, name)
            if array.shape != (count, columns) or array.dtype != np.float64:
                raise ValueError(
                    f"objects: {name} is {array.dtype} {array.shape}; expected float64 {(count, columns)}, a row for "
                    "each name"
                )
            finite = np.isfinite(array) | (np.isnan(array) & (name == "velocity"))
            if not finite.all():
                row = int(np.flatnonzero(~finite.all(1))[0])
                raise ValueError(f"objects: {name} of object {row} ({self.names[row]}) is {array[row].tolist()}")
        if len(self.attributes) != count or self.points.shape != (count,):
            raise ValueError(
                f"objects: {len(self.attributes)} attributes and points of shape {self.points.shape} for {count} names"
            )
        if not (self.size > 0).all() or not (np.abs(self.rotation).sum(1) > 0).all():
            raise ValueError("objects: sizes (metres) must be above 0 and quaternions longer than 0")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def none(cls) -> GlobalObjects:
        """A sample without objects."""
        three = np.zeros((0, 3))
        return cls((), three, three, np.zeros((0, 4)), np.zeros((0, 2)), (), np.zeros(0, dtype=np.int64))
