"""A changed scene is the same scene: boxes and cameras move together."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.bev.boxes import corners
from multimodal_zoo.bev.geometry import lidar_to_image, pose, rotation_of
from multimodal_zoo.data.bev_augment import BevAugment, BevChange, inside, turned_home


@pytest.fixture
def boxes() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(6, 9, generator=generator, dtype=torch.float64)
    scale = torch.tensor([40, 40, 2, 3, 5, 2, 6, 10, 10], dtype=torch.float64)
    shift = torch.tensor([20, 20, 1, -1, -1, -1, 3, 5, 5], dtype=torch.float64)
    return drawn * scale - shift


CHANGES = [
    BevChange(flip_y=True),
    BevChange(flip_x=True),
    BevChange(angle=0.3),
    BevChange(scale=1.05),
    BevChange(translation=(1.0, -2.0, 0.5)),
    BevChange(True, True, -0.2, 0.95, (0.1, 0.2, -0.3)),
    BevChange(True, False, 2.0, 1.1, (0.0, 1.0, 0.0)),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_boxes_move_as_points(boxes: Tensor, change: BevChange) -> None:
    """All corners, and a velocity as the difference of two points."""
    matrix = change.matrix()
    expected = corners(boxes) @ matrix[:3, :3].T + matrix[:3, 3]
    found = corners(change.boxes(boxes))
    distance = torch.cdist(found, expected)  # mirrored boxes count their corners in another order
    assert_close(distance.min(dim=-1).values, torch.zeros(6, 8, dtype=torch.float64), atol=1e-9, rtol=0)
    later = boxes.clone()
    later[:, :2] += boxes[:, 7:]
    assert_close((change.boxes(later) - change.boxes(boxes))[:, :2], change.boxes(boxes)[:, 7:], atol=1e-9, rtol=0)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_pictures_stay(boxes: Tensor, change: BevChange) -> None:
    """A point of the changed scene falls on the pixel of the point it was, at the same depth: the pose is scaled."""
    where = pose(rotation_of(torch.tensor([0.5, -0.5, 0.5, -0.5])), torch.tensor([0.3, 0.2, -0.3]))
    intrinsic = torch.tensor([[500.0, 0, 300], [0, 400, 200], [0, 0, 1]], dtype=torch.float64)
    points = torch.cat([boxes[:, :3], torch.ones(6, 1, dtype=torch.float64)], dim=1)
    moved = points @ change.matrix().T
    before = points @ lidar_to_image(intrinsic, where).T
    after = moved @ lidar_to_image(intrinsic, change.poses(where)).T
    assert_close(after, before, atol=1e-8, rtol=1e-9)


def test_draws() -> None:
    augment = BevAugment([-0.4, 0.4], [0.9, 1.1], [0.05, 0.1, 0.0], 0.5, 0.25)
    drawn = [augment.draw(Random(seed)) for seed in range(600)]
    assert sum(one.flip_y for one in drawn) / 600 == pytest.approx(0.5, abs=0.07)
    assert sum(one.flip_x for one in drawn) / 600 == pytest.approx(0.25, abs=0.07)
    assert all(abs(one.angle) <= 0.4 and 0.9 <= one.scale <= 1.1 for one in drawn)
    assert torch.tensor([one.translation for one in drawn]).std(dim=0).tolist() == pytest.approx(
        [0.05, 0.1, 0.0], rel=0.1
    )
    still = BevAugment([0, 0], [1, 1], [0, 0, 0], 0.0, 0.0).draw(Random(0))
    assert still == BevChange()
    assert augment.draw(Random(5)) == augment.draw(Random(5))


def test_area_and_yaw() -> None:
    boxes = torch.zeros(5, 9)
    boxes[:, 0] = torch.tensor([0.0, 50.0, -49.9, 0.0, 0.0])
    boxes[:, 1] = torch.tensor([0.0, 0.0, 0.0, -51.0, 0.0])
    boxes[:, 2] = 99.0  # heights do not count
    boxes[:, 6] = torch.tensor([math.pi, 4.0, -4.0, 0.0, 1.0])
    assert inside(boxes, [-50, -50, -5, 50, 50, 3]).tolist() == [True, False, True, False, True]
    assert turned_home(boxes)[:, 6].tolist() == pytest.approx([-math.pi, 4 - 2 * math.pi, 2 * math.pi - 4, 0.0, 1.0])
    assert inside(boxes[:0], [-50, -50, -5, 50, 50, 3]).shape == (0,)
    assert BevChange(flip_x=True).boxes(boxes[:0]).shape == (0, 9)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"bev_augment\.scale is \[0, 1\]"):
        BevAugment([0, 0], [0, 1], [0, 0, 0], 0, 0)
    with pytest.raises(ValueError, match=r"bev_augment\.angle is \[1, 0\]"):
        BevAugment([1, 0], [1, 1], [0, 0, 0], 0, 0)
    with pytest.raises(ValueError, match=r"bev_augment\.translation is \[0, 0\]"):
        BevAugment([0, 0], [1, 1], [0, 0], 0, 0)
    with pytest.raises(ValueError, match=r"bev_augment\.flip_x is 1.5"):
        BevAugment([0, 0], [1, 1], [0, 0, 0], 0, 1.5)
