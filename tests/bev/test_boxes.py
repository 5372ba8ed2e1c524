"""The layout of boxes: its modern form and its corners."""

from __future__ import annotations

import math

import torch
from plain_boxes import outline, scattered
from torch.testing import assert_close

from multimodal_zoo.bev.boxes import CLASSES, corners, from_modern, gravity_centres, seen_from_above, to_modern


def test_a_car_that_drives_along_x() -> None:
    """Its length lies along x: a quarter turn counter-clockwise in the old layout, none in the modern one."""
    old = torch.tensor([[3.0, 4.0, -1.0, 1.8, 4.5, 1.6, -math.pi / 2, 5.0, 0.0]])
    modern = to_modern(old)
    assert_close(modern, torch.tensor([[3.0, 4.0, -0.2, 4.5, 1.8, 1.6, 0.0, 5.0, 0.0]]), atol=1e-6, rtol=0)
    reach = corners(old)[0, :4, :2] - old[0, :2]
    assert_close(reach.abs(), torch.tensor([[2.25, 0.9]]).expand(4, 2), atol=1e-6, rtol=0)


def test_there_and_back() -> None:
    boxes, _ = scattered(50, 40.0)
    again = from_modern(to_modern(boxes))
    turns = (again[:, 6] - boxes[:, 6]) / (2 * math.pi)
    assert_close(turns, turns.round(), atol=1e-12, rtol=0)
    keep = [0, 1, 2, 3, 4, 5, 7, 8]
    assert_close(again[:, keep], boxes[:, keep], atol=1e-12, rtol=0)
    assert bool(((again[:, 6] >= -math.pi) & (again[:, 6] < math.pi)).all())
    assert_close(to_modern(boxes[:, :7]), to_modern(boxes)[:, :7])
    assert to_modern(boxes[:0]).shape == (0, 9)


def test_corners_are_those_of_the_rectangle_at_both_ends_of_the_height() -> None:
    boxes, _ = scattered(20, 40.0)
    found = corners(boxes)
    assert found.shape == (20, 8, 3)
    for box, mine in zip(boxes, found, strict=True):
        wanted = torch.tensor(outline(seen_from_above(box).tolist()), dtype=torch.float64)
        for part in (mine[:4, :2], mine[4:, :2]):
            assert float((part[:, None] - wanted[None]).norm(dim=-1).amin(0).max()) < 1e-12
        assert_close(mine[:4, 2], box[2].expand(4))
        assert_close(mine[4:, 2], (box[2] + box[5]).expand(4))
    assert_close(found.mean(1), gravity_centres(boxes))
    front = found[:, [1, 2, 5, 6]].mean(1) - gravity_centres(boxes)
    assert_close(front[:, 0], boxes[:, 4] / 2 * boxes[:, 6].sin())  # clockwise from +y
    assert_close(front[:, 1], boxes[:, 4] / 2 * boxes[:, 6].cos())


def test_classes_and_devices() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 10
    assert corners(torch.empty(3, 9, device="meta")).shape == (3, 8, 3)
    assert corners(torch.empty(0, 9)).shape == (0, 8, 3)
