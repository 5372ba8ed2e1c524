"""Poses and projections against trigonometry and against points placed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.bev.geometry import (
    history_pose,
    image_map,
    lidar_to_image,
    moved,
    pose,
    quaternion_of,
    rotation_of,
    wrapped,
)

#: From camera axes (right, down, forward) to LiDAR axes (right, forward, up).
FORWARD = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
INTRINSIC = torch.tensor([[100.0, 0, 80], [0, 120, 45], [0, 0, 1]])


def _turn(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


def test_quaternions_and_rotations_are_one_another() -> None:
    quaternions = torch.nn.functional.normalize(torch.randn(200, 4, dtype=torch.float64), dim=1)
    quaternions = torch.cat((quaternions, torch.eye(4, dtype=torch.float64)))
    quaternions[:, 0] = quaternions[:, 0].abs()
    rotations = rotation_of(quaternions)
    assert_close(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(204, 3, 3))
    assert_close(torch.linalg.det(rotations), torch.ones(204, dtype=torch.float64))
    assert_close(rotation_of(quaternion_of(rotations)), rotations)
    assert_close(quaternion_of(rotations)[:200], quaternions[:200])
    half = torch.tensor([math.cos(0.35), 0, 0, math.sin(0.35)])
    assert_close(rotation_of(half), _turn(0.7), atol=1e-7, rtol=0)
    assert_close(rotation_of(5 * half), _turn(0.7), atol=1e-7, rtol=0)


def test_points_fall_where_a_pinhole_camera_sees_them() -> None:
    camera = pose(FORWARD, torch.tensor([0.5, 1.0, 1.5]))  # 1 m before the LiDAR, 1.5 m above it, looking forward
    matrix = lidar_to_image(INTRINSIC, camera)
    u, v, depth, one = matrix @ torch.tensor([2.5, 11.0, 0.5, 1.0], dtype=torch.float64)
    assert (float(depth), float(one)) == (10.0, 1.0)  # 10 m ahead, 2 m to the right, 1 m below the camera
    assert_close(torch.stack((u, v)) / depth, torch.tensor([80 + 100 * 0.2, 45 + 120 * 0.1], dtype=torch.float64))


def test_an_augmented_picture_moves_its_pixels() -> None:
    camera, point = pose(FORWARD, torch.zeros(3)), torch.tensor([1.0, 8.0, -1.0, 1.0], dtype=torch.float64)
    augmented = image_map(torch.tensor([[-0.5, 0.1], [0.0, 0.5]]), torch.tensor([70.0, -3.0]))
    plain, changed = (lidar_to_image(INTRINSIC, camera, one) @ point for one in (None, augmented))
    pixel = torch.cat((plain[:2] / plain[2], torch.ones(1, dtype=torch.float64)))
    assert_close(changed[:2] / changed[2], (augmented @ pixel)[:2])


def test_a_scaled_and_mirrored_pose_is_inverted() -> None:
    scene = torch.diag(torch.tensor([-1.1, 1.1, 1.1, 1.0], dtype=torch.float64))  # augmentation in bird's-eye view
    camera, point = pose(FORWARD, torch.tensor([0.0, 0.5, 0.2])), torch.tensor([1.0, 6.0, 0.4, 1.0]).double()
    before, after = (
        lidar_to_image(INTRINSIC, camera) @ point,
        lidar_to_image(INTRINSIC, scene @ camera) @ (scene @ point),
    )
    assert_close(after, before)


def test_history_follows_the_car() -> None:
    lidar = pose(_turn(0.1), torch.tensor([1.0, 0.0, 1.8]))
    camera = pose(FORWARD, torch.tensor([0.0, 0.5, 0.0]))
    now, then = (pose(_turn(a), torch.tensor([x, y, 0.0])) for a, x, y in ((0.3, 9.0, 2.0), (0.1, 5.0, 1.0)))
    assert_close(history_pose(now, now, lidar, camera), camera)
    found = history_pose(now, then, lidar, camera)
    world = moved(then, moved(lidar, moved(camera, torch.zeros(1, 3, dtype=torch.float64))))
    assert_close(moved(now, moved(lidar, moved(found, torch.zeros(1, 3, dtype=torch.float64)))), world)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("period", [math.pi, 2 * math.pi])
def test_angles_are_wrapped_to_one_period(offset: float, period: float) -> None:
    angles = torch.linspace(-20, 20, 401, dtype=torch.float64)
    found = wrapped(angles, offset, period)
    assert bool((found >= -offset * period - 1e-12).all())
    assert bool((found < (1 - offset) * period + 1e-12).all())
    turns = (angles - found) / period
    assert_close(turns, turns.round(), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("intrinsic", "words"),
    [
        (torch.zeros(3, 3), "singular"),
        (torch.full((3, 3), torch.nan), "not finite"),
        (torch.diag(torch.tensor([-100.0, 100, 1])), "focal lengths"),
    ],
)
def test_no_camera(intrinsic: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        lidar_to_image(intrinsic, torch.eye(4))


def test_a_flat_pose_is_refused() -> None:
    flat = torch.eye(4)
    flat[2, 2] = 0
    with pytest.raises(ValueError, match="sensor2lidar has no inverse"):
        lidar_to_image(INTRINSIC, flat)
