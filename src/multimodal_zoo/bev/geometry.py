"""Frames, poses and projections of cameras on a car; float64, metres, radians.

A pose `(..., 4, 4)` takes points of one frame to another: `sensor2lidar` takes a point that the camera sees to the
frame of the LiDAR. The frames of nuScenes: LiDAR x to the right of the car, y forward, z up; ego x forward, y left, z
up; camera x to the right of the picture, y down, z into the scene. Pixels count from the centre of the first one: a
point that projects to (0, 0) falls on it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def pose(rotation: Tensor, translation: Tensor) -> Tensor:
    """The pose `(..., 4, 4)` of a matrix `(..., 3, 3)` and a shift `(..., 3)` in metres, float64."""
    rotation, translation = rotation.double(), translation.double()
    shape = torch.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    top = torch.cat((rotation.expand(*shape, 3, 3), translation[..., None].expand(*shape, 3, 1)), dim=-1)
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64, device=top.device).expand(*shape, 1, 4)
    return torch.cat((top, last), dim=-2)


def moved(pose: Tensor, points: Tensor) -> Tensor:
    """Points `(..., n, 3)` of one frame in the other frame of a pose `(..., 4, 4)`."""
    return points @ pose[..., :3, :3].mT + pose[..., None, :3, 3]


def rotation_of(quaternion: Tensor) -> Tensor:
    """Rotations `(..., 3, 3)` of quaternions `(..., 4)` in the order w, x, y, z, of any length but 0."""
    w, x, y, z = (quaternion.double() / quaternion.double().norm(dim=-1, keepdim=True)).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def quaternion_of(rotation: Tensor) -> Tensor:
    """Quaternions `(..., 4)`, w, x, y, z with w not negative, of rotations `(..., 3, 3)`.

    The part of largest size is taken from the diagonal and the others from sums beside it, which never cancel.
    """
    m = rotation.double()
    diagonal = m.diagonal(dim1=-2, dim2=-1)
    trace = diagonal.sum(-1, keepdim=True)
    squares = torch.cat((trace, 2 * diagonal - trace), dim=-1) + 1  # four times the squares of w, x, y, z
    largest = squares.argmax(-1)
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    w2, x2, y2, z2 = squares.unbind(-1)
    ways = torch.stack(
        [torch.stack(one, dim=-1) for one in ((w2, wx, wy, wz), (wx, x2, xy, xz), (wy, xy, y2, yz), (wz, xz, yz, z2))],
        dim=-2,
    )
    chosen = ways.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)
    unit = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def wrapped(angle: Tensor, offset: float = 0.5, period: float = math.pi) -> Tensor:
    """Angles in `[-offset period, (1 - offset) period)`, equal to the given ones up to whole periods."""
    return angle - torch.floor(angle / period + offset) * period


def image_map(scale: Tensor, shift: Tensor) -> Tensor:
    """`(..., 3, 3)` that takes pixels of a picture to those of its augmented version: `scale pixel + shift`.

    Args:
        scale: `(..., 2, 2)`, resizing, mirroring and rotation.
        shift: `(..., 2)`, pixels.
    """
    whole = torch.eye(3, dtype=torch.float64, device=scale.device).repeat(*scale.shape[:-2], 1, 1)
    whole[..., :2, :2], whole[..., :2, 2] = scale, shift
    return whole


def lidar_to_image(intrinsic: Tensor, sensor2lidar: Tensor, augmented: Tensor | None = None) -> Tensor:
    """`(..., 4, 4)` that takes points of the LiDAR frame to `(u depth, v depth, depth, 1)`: pixels times depth.

    The pose may hold a scale and a mirroring (augmentation in bird's-eye view), so it is inverted as a matrix.

    Args:
        intrinsic: `(..., 3, 3)`, focal lengths and principal point in pixels of the original picture.
        sensor2lidar: `(..., 4, 4)`, pose of the camera.
        augmented: `(..., 3, 3)`, see `image_map`; None for pictures as they were taken.

    Raises:
        ValueError: a matrix that has no inverse, or numbers that are not finite.
    """
    intrinsic, sensor2lidar = intrinsic.double(), sensor2lidar.double()
    check_intrinsic(intrinsic)
    if not bool(sensor2lidar.isfinite().all()) or bool((torch.linalg.det(sensor2lidar).abs() < 1e-9).any()):
        raise ValueError(f"cameras: sensor2lidar has no inverse: {sensor2lidar.tolist()}")
    if augmented is not None:
        intrinsic = augmented.double() @ intrinsic
    camera = torch.linalg.inv(sensor2lidar)
    return torch.cat((intrinsic @ camera[..., :3, :], camera[..., 3:, :]), dim=-2)


def check_intrinsic(intrinsic: Tensor) -> None:
    """Refuse matrices `(..., 3, 3)` of no camera.

    Raises:
        ValueError: with the matrix: not finite, singular, or a focal length that is not positive.
    """
    focal = intrinsic.diagonal(dim1=-2, dim2=-1)[..., :2]
    if not bool(intrinsic.isfinite().all()) or bool((torch.linalg.det(intrinsic).abs() < 1e-9).any()):
        raise ValueError(f"cameras: intrinsic matrix is singular or not finite: {intrinsic.tolist()}")
    if bool((focal <= 0).any()):
        raise ValueError(f"cameras: focal lengths (pixels) must be above 0: {intrinsic.tolist()}")


def history_pose(ego_now: Tensor, ego_then: Tensor, lidar2ego: Tensor, sensor2lidar: Tensor) -> Tensor:
    """`sensor2lidar` of a camera at an earlier (or later) time, in the LiDAR frame of the current one.

    Alignment over time is nothing but this: the camera's current pose moved by the car's own motion (Fast-BEV, arXiv
    2301.12511).

    Args:
        ego_now: `(..., 4, 4)`, ego to global, current.
        ego_then: the same at the other time.
        lidar2ego: pose of the LiDAR.
        sensor2lidar: pose of the camera at the current time.
    """
    lidar = lidar2ego.double()
    motion = torch.linalg.inv(lidar) @ torch.linalg.inv(ego_now.double()) @ ego_then.double() @ lidar
    return motion @ sensor2lidar.double()
