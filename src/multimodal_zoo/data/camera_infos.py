"""Records of driving scenes: which pictures were taken from where, and what stood around the car.

Numbers are float64 arrays in metres, radians, seconds of the frames of `bev.geometry`; boxes are rows of `bev.boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from multimodal_zoo.bev.geometry import quaternion_of

#: The category of racks, inside of which cycles are not judged.
BICYCLE_RACK = "static_object.bicycle_rack"
#: The six cameras of nuScenes in the order that published weights know.
CAMERA_NAMES = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")


@dataclass(frozen=True, eq=False)
class CameraInfo:
    """One picture of a key frame with its calibration.

    Attributes:
        path: of the picture, relative to the data set's folder.
        intrinsic: (3, 3), pixels of the picture as it was taken.
        sensor2lidar: (4, 4), pose of the camera when the picture was taken, in the LiDAR frame of the key frame: the
            car's own motion between the two is in it.
        size: height and width of the picture; None if the source does not say.
    """

    path: str
    intrinsic: np.ndarray
    sensor2lidar: np.ndarray
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Sweep:
    """The pictures of another time.

    Attributes:
        timestamp: microseconds.
        ego2global: (4, 4), of the first camera's picture.
        paths: name of a camera -> its picture nearest in time.
    """

    timestamp: int
    ego2global: np.ndarray
    paths: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class SceneObjects:
    """What stood around the car, as it is learnt.

    Attributes:
        boxes: (n, 9), rows of `bev.boxes` in the LiDAR frame with absolute velocities; NaN where one is not known.
        names: (n), classes; names outside of the ten classes may be among them.
        num_lidar_pts: int64 (n,), points of the LiDAR on each.
        num_radar_pts: int64 (n,).
        valid: bool (n,), what the source calls valid: seen by LiDAR or radar.
    """

    boxes: np.ndarray
    names: tuple[str, ...]
    num_lidar_pts: np.ndarray
    num_radar_pts: np.ndarray
    valid: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """What stood around the car, as it is judged: in the global frame.

    Attributes:
        token: of the key frame.
        ego2global: (4, 4).
        lidar2ego: (4, 4).
        names: (n), classes.
        translations: (n, 3), centres of gravity.
        sizes: (n, 3), width, length, height.
        rotations: (n, 4), quaternions w, x, y, z.
        velocities: (n, 2), NaN where not known.
        attributes: (n), e.g. `vehicle.moving`; empty where there is none.
        num_lidar_pts: int64 (n,).
        num_radar_pts: int64 (n,).
        racks: (m, 10), racks for bicycles: translation, size, rotation.
    """

    token: str
    ego2global: np.ndarray
    lidar2ego: np.ndarray
    names: tuple[str, ...]
    translations: np.ndarray
    sizes: np.ndarray
    rotations: np.ndarray
    velocities: np.ndarray
    attributes: tuple[str, ...]
    num_lidar_pts: np.ndarray
    num_radar_pts: np.ndarray
    racks: np.ndarray = field(default_factory=lambda: np.zeros((0, 10)))

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class SceneInfo:
    """One key frame.

    Attributes:
        token: its name.
        scene: name of the drive; empty if the source does not say.
        timestamp: microseconds, of the LiDAR.
        lidar2ego: (4, 4).
        ego2global: (4, 4), when the LiDAR was read.
        cameras: by name.
        previous: earlier times, the nearest first.
        following: later times, the nearest first.
        ego_velocity: (2,), the car's own velocity in the LiDAR frame.
        objects: what is learnt; None where nothing was annotated (the official test scenes).
        truth: what is judged; None likewise.
    """

    token: str
    scene: str
    timestamp: int
    lidar2ego: np.ndarray
    ego2global: np.ndarray
    cameras: Mapping[str, CameraInfo]
    previous: Sequence[Sweep]
    following: Sequence[Sweep]
    ego_velocity: np.ndarray
    objects: SceneObjects | None
    truth: SceneTruth | None

    @property
    def lidar2global(self) -> np.ndarray:
        """Pose (4, 4) of the LiDAR."""
        return self.ego2global @ self.lidar2ego


def rigid(rotation: np.ndarray, translation: Sequence[float] | np.ndarray) -> np.ndarray:
    """The pose (4, 4) of a matrix (3, 3) and a shift (3,)."""
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = rotation, translation
    return found


def rigid_of(quaternion: Sequence[float], translation: Sequence[float]) -> np.ndarray:
    """The pose (4, 4) of a quaternion w, x, y, z and a shift, in plain numbers: tables hold millions of them.

    Raises:
        ValueError: a quaternion of length 0, or not of four numbers.
    """
    size = math.hypot(*quaternion)
    if len(quaternion) != 4 or not size > 0:
        raise ValueError(f"quaternion {list(quaternion)}: expected w, x, y, z, not all 0")
    w, x, y, z = (part / size for part in quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), translation[0]],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), translation[1]],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), translation[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def global_truth(
    token: str,
    ego2global: np.ndarray,
    lidar2ego: np.ndarray,
    objects: SceneObjects,
    classes: Sequence[str],
    attributes: Sequence[str] | None = None,
) -> SceneTruth:
    """What is judged, from boxes of the LiDAR frame: for sources that hold no others.

    Args:
        token: of the key frame.
        ego2global: (4, 4).
        lidar2ego: (4, 4).
        objects: boxes with absolute velocities.
        classes: names that are judged.
        attributes: of each object; None for none.
    """
    kept = np.array([name in classes for name in objects.names], dtype=bool)
    boxes, to_global = objects.boxes[kept], ego2global @ lidar2ego
    centres = boxes[:, :3] + np.stack([0 * boxes[:, 5], 0 * boxes[:, 5], boxes[:, 5] / 2], axis=1)
    heading = -boxes[:, 6] - np.pi / 2  # of the length's axis, counter-clockwise from x
    turn = np.zeros((len(boxes), 3, 3))
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0] = np.cos(heading), -np.sin(heading), np.sin(heading)
    turn[:, 1, 1], turn[:, 2, 2] = np.cos(heading), 1
    flat = np.concatenate([boxes[:, 7:9], np.zeros((len(boxes), 1))], axis=1)
    names = tuple(name for name, one in zip(objects.names, kept, strict=True) if one)
    told = ("",) * len(objects) if attributes is None else tuple(attributes)
    return SceneTruth(
        token=token,
        ego2global=ego2global,
        lidar2ego=lidar2ego,
        names=names,
        translations=centres @ to_global[:3, :3].T + to_global[:3, 3],
        sizes=boxes[:, 3:6].copy(),
        rotations=quaternion_of(torch.from_numpy(to_global[:3, :3] @ turn)).numpy(),
        velocities=(flat @ to_global[:3, :3].T)[:, :2],
        attributes=tuple(one for one, keep in zip(told, kept, strict=True) if keep),
        num_lidar_pts=objects.num_lidar_pts[kept],
        num_radar_pts=objects.num_radar_pts[kept],
    )
