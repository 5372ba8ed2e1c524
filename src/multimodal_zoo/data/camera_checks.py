"""Whether a calibration can be that of cameras on a car, before anything is learnt from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from multimodal_zoo.bev.geometry import check_intrinsic
from multimodal_zoo.data.camera_infos import CameraInfo
from multimodal_zoo.data.limits import ends
from multimodal_zoo.registry import DATASETS

logger = logging.getLogger(__name__)

#: Where the ground is looked for ahead of a camera, in metres.
AHEAD = 10.0
#: Cosine of the slant up to which a camera looks ahead at all, and not up or down.
LEVEL = 0.5
#: Points on the ground, along each side of a square of 100 m, that tell the coverage.
POINTS = 40


@DATASETS.register_module(name="camera_checks")
class CameraChecks:
    """Refuses calibrations that are no cameras on a car, and warns where cameras see little of what is around it.

    Poses in a wrong frame (inverted, of the ego or of the world) fail here: their cameras lie far from the LiDAR or at
    no height of a car, stand on their heads, or see the ground above the horizon.

    Args:
        distance: furthest that a camera lies from the LiDAR, in metres.
        height: least and largest height of a camera above the ground, in metres.
        off_centre: furthest that the principal point lies from the middle, in shares of width and height.
        coverage: share of the ground within 50 m that cameras must see together; less is warned of once.

    Raises:
        ValueError: limits that run backwards.
    """

    def __init__(
        self,
        distance: float = 10.0,
        height: Sequence[float] = (0.3, 3.0),
        off_centre: float = 0.2,
        coverage: float = 0.5,
    ) -> None:
        ends(height, "processor.checks.height")
        self.distance, self.height, self.off_centre, self.coverage = distance, height, off_centre, coverage
        self._warned = False

    def picture(self, camera: CameraInfo, size: tuple[int, int], key: str) -> None:
        """Refuse the calibration of a picture of another size.

        Args:
            camera: its calibration.
            size: height and width of the picture itself.
            key: names sample and camera in the error.

        Raises:
            ValueError: with both sizes.
        """
        if camera.size is not None and tuple(camera.size) != tuple(size):
            raise ValueError(
                f"{key}: the picture has {size[0]}x{size[1]} pixels, but its calibration is for "
                f"{camera.size[0]}x{camera.size[1]}; resize the picture, or scale cam_intrinsic with it"
            )
        check_intrinsic(torch.from_numpy(np.asarray(camera.intrinsic, dtype=np.float64)))
        middle = np.array([size[1], size[0]]) / 2
        point = np.asarray(camera.intrinsic)[:2, 2]
        if (np.abs(point - middle) > self.off_centre * 2 * middle).any():
            raise ValueError(
                f"{key}: the principal point {point.tolist()} lies far from the middle {middle.tolist()} of a "
                f"picture of {size[0]}x{size[1]} pixels: cam_intrinsic is for another size "
                "(limit: processor.checks.off_centre)"
            )

    def rig(self, cameras: Mapping[str, CameraInfo], lidar2ego: np.ndarray, key: str) -> None:
        """Refuse poses of cameras that lie in no place of a car.

        Args:
            cameras: by name.
            lidar2ego: (4, 4), which says where the ground is: at height 0 of the ego frame.
            key: names the sample in the error.

        Raises:
            ValueError: with camera, value and what was expected.
        """
        for name, camera in cameras.items():
            self._pose(camera, lidar2ego, f"{key}, {name}")
        if not self._warned and cameras:
            share = covered(cameras, lidar2ego)
            if share < self.coverage:
                self._warned = True
                logger.warning(
                    "%s: cameras see %.0f %% of the ground within 50 m, below %.0f %% (processor.checks.coverage): "
                    "look at calibration and missing cameras",
                    key,
                    100 * share,
                    100 * self.coverage,
                )

    def _pose(self, camera: CameraInfo, lidar2ego: np.ndarray, key: str) -> None:
        pose = np.asarray(camera.sensor2lidar, dtype=np.float64)
        if not np.isfinite(pose).all() or abs(np.linalg.det(pose[:3, :3]) - 1) > 0.05:
            raise ValueError(f"{key}: sensor2lidar is no pose: {pose.tolist()}")
        away = float(np.linalg.norm(pose[:3, 3]))
        if away > self.distance:
            raise ValueError(
                f"{key}: the camera lies {away:.1f} m from the LiDAR, more than {self.distance:g} m "
                "(processor.checks.distance): sensor2lidar leads to the LiDAR's frame, not to the world's"
            )
        in_ego = lidar2ego @ pose
        above = float(in_ego[2, 3])
        if not self.height[0] <= above <= self.height[1]:
            raise ValueError(
                f"{key}: the camera lies {above:.2f} m above the ground, expected {self.height[0]:g} to "
                f"{self.height[1]:g} m (processor.checks.height): is sensor2lidar in the LiDAR's frame, not inverted?"
            )
        ahead = in_ego[:3, 2].copy()
        ahead[2] = 0
        if np.linalg.norm(ahead) < LEVEL:
            return  # looks up or down: no horizon in sight
        ahead /= np.linalg.norm(ahead)
        ground = in_ego[:3, 3] + AHEAD * ahead
        level, ground[2] = ground.copy(), 0.0
        back = np.linalg.inv(in_ego)
        below, horizon = (back[:3, :3] @ point + back[:3, 3] for point in (ground, level))
        if below[2] <= 0 or horizon[2] <= 0 or below[1] / below[2] <= horizon[1] / horizon[2]:
            raise ValueError(
                f"{key}: ground {AHEAD:g} m ahead of the camera falls above its horizon: sensor2lidar is in another "
                f"frame or inverted; its axes in the ego frame are {in_ego[:3, :3].round(2).tolist()}"
            )


def covered(cameras: Mapping[str, CameraInfo], lidar2ego: np.ndarray) -> float:
    """Share of the ground within a square of 100 m that some camera sees.

    Args:
        cameras: by name; where no size is given the principal point is taken for the middle.
        lidar2ego: (4, 4), says where the ground is.
    """
    line = np.linspace(-50, 50, POINTS)
    grid = np.stack([*np.meshgrid(line, line), np.zeros((POINTS, POINTS))], axis=-1).reshape(-1, 3)
    seen = np.zeros(len(grid), dtype=bool)
    for camera in cameras.values():
        back = np.linalg.inv(lidar2ego @ camera.sensor2lidar)
        rays = (grid @ back[:3, :3].T + back[:3, 3]) @ np.asarray(camera.intrinsic).T
        depth = np.where(rays[:, 2] > 0, rays[:, 2], np.inf)
        pixels = rays[:, :2] / depth[:, None]
        size = 2 * np.asarray(camera.intrinsic)[:2, 2] if camera.size is None else np.array(camera.size[::-1])
        seen |= (rays[:, 2] > 0) & (pixels >= 0).all(axis=1) & (pixels < size).all(axis=1)
    return float(seen.mean())
