"""Detection while driving: each picture is encoded once, and its maps serve again for the frames that follow.

Alignment over time is in the matrices alone (`bev.geometry.history_pose`), so that maps of earlier pictures fill the
current volume with matrices of their own: nothing is warped, and the result is that of encoding all pictures again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras, joined_frames
from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.post_processing import Detections


@dataclass(frozen=True, eq=False)
class DrivenFrame:
    """What is known at one time.

    Attributes:
        images: (cameras, 3, height, width), normalised.
        lidar_to_image: float64 (cameras, 4, 4), from this time's LiDAR frame to pixels times depth.
        ego2global: float64 (4, 4), pose of the car.
        lidar2ego: float64 (4, 4), pose of the LiDAR.
        time: seconds.
        present: bool (cameras,), False where a camera gave no picture; None where all did.
    """

    images: Tensor
    lidar_to_image: Tensor
    ego2global: Tensor
    lidar2ego: Tensor
    time: float
    present: Tensor | None = None

    @property
    def lidar2global(self) -> Tensor:
        """Pose of the LiDAR in the world."""
        return self.ego2global.double() @ self.lidar2ego.double()


@dataclass(frozen=True, eq=False)
class _Kept:
    maps: list[Tensor]
    cameras: Cameras
    lidar2global: Tensor
    time: float


class StreamingDetector:
    """A detector that remembers.

    Where no frame is as old as wanted, the oldest that there is serves; at the start that is the current one. The
    published code takes frames of the future there, which a car cannot. One model serves one detector at a time: it
    writes volumes into memory of its own.

    Args:
        model: in evaluation mode.
        offsets: seconds from the current frame back to each earlier one that the model reads.
        tolerance: seconds that a frame may be away from the wanted time; beyond it the current one serves.

    Raises:
        ValueError: another number of offsets than the model reads frames beside the current one, or offsets that do not
            grow.
    """

    def __init__(self, model: FastBEV, offsets: Sequence[float] = (0.5, 1.0, 1.5), tolerance: float = 0.3) -> None:
        if len(offsets) != model.frames - 1 or list(offsets) != sorted(set(offsets)) or min(offsets, default=1.0) <= 0:
            raise ValueError(
                f"offsets is {tuple(offsets)}; model.frames is {model.frames}, so {model.frames - 1} growing "
                "numbers above 0 are expected"
            )
        self.model, self.offsets, self.tolerance = model, tuple(offsets), tolerance
        self._kept: deque[_Kept] = deque()

    def reset(self) -> None:
        """Forget all frames, as between two drives."""
        self._kept.clear()

    @torch.no_grad()
    def step(self, frame: DrivenFrame) -> Detections:
        """The objects around the car at the time of a frame, which must be later than all before.

        Raises:
            ValueError: a frame of the past.
        """
        if self._kept and frame.time <= self._kept[-1].time:
            raise ValueError(
                f"a frame at {frame.time} s behind one at {self._kept[-1].time} s; call reset() between drives"
            )
        height, width = frame.images.shape[-2:]
        present = None if frame.present is None else frame.present[None, None]
        cameras = Cameras(frame.lidar_to_image.double()[None, None], (height, width), present)
        now = _Kept(self.model.encode(frame.images[None, None]), cameras, frame.lidar2global, frame.time)
        self._kept.append(now)
        while self._kept[0].time < frame.time - (max(self.offsets, default=0.0) + self.tolerance):
            self._kept.popleft()
        chosen = [now, *(self._nearest(frame.time - offset) for offset in self.offsets)]
        maps = [torch.cat(level, dim=1) for level in zip(*(one.maps for one in chosen), strict=True)]
        seen = joined_frames([self._moved(one, now) for one in chosen])
        return self.model.head.select([self.model.head(self.model.bev(maps, seen))])[0]

    def _nearest(self, time: float) -> _Kept:
        best = min(self._kept, key=lambda one: abs(one.time - time))
        oldest = self._kept[0].time > time  # the drive is younger than that
        return best if oldest or abs(best.time - time) <= self.tolerance else self._kept[-1]

    @staticmethod
    def _moved(frame: _Kept, now: _Kept) -> Cameras:
        """The cameras of a frame, from the current LiDAR frame."""
        if frame is now:
            return now.cameras
        motion = torch.linalg.inv(frame.lidar2global) @ now.lidar2global
        return Cameras(frame.cameras.lidar_to_image @ motion, frame.cameras.size, frame.cameras.present)
