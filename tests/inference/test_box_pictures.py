"""Boxes fall where they are, and face where they drive."""

from __future__ import annotations

import math

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.bev.boxes import corners, from_modern, to_modern
from multimodal_zoo.bev.geometry import lidar_to_image, pose
from multimodal_zoo.inference.box_pictures import (
    COLOURS,
    FRONT,
    TRUTH,
    boxes_from_above,
    boxes_in_camera,
    legend,
    surround_sheet,
)

FORWARD = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
INTRINSIC = torch.tensor([[100.0, 0, 100], [0, 100, 50], [0, 0, 1]])


def _box(x: float, y: float, heading: float, speed: float = 0.0) -> Tensor:
    """A car whose length's axis lies `heading` counter-clockwise from x, and which drives there."""
    velocity = speed * math.cos(heading), speed * math.sin(heading)
    return from_modern(torch.tensor([[x, y, 0.5, 4.0, 2.0, 1.0, heading, *velocity]]))


def _coloured(picture: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    return [
        (x, y)
        for x in range(picture.width)
        for y in range(picture.height)
        if sum(abs(a - b) for a, b in zip(picture.getpixel((x, y)), colour, strict=True)) < 60
    ]


@pytest.mark.parametrize("heading", [0.0, math.pi / 2, 2.5, -1.0])
def test_the_line_from_the_centre_leads_where_a_box_drives(heading: float) -> None:
    still = boxes_from_above(_box(0, 0, heading), torch.tensor([0]), reach=5, side=400)
    places = _coloured(still, COLOURS[0])
    ahead = [(200 + 40 * s * math.cos(heading), 200 - 40 * s * math.sin(heading)) for s in (0.5, 1.0, 1.5)]
    behind = [(400 - x, 400 - y) for x, y in ahead]
    for marks, drawn in ((ahead, True), (behind, False)):
        for x, y in marks:
            near = any(abs(x - a) <= 2 and abs(y - b) <= 2 for a, b in places)
            assert near == drawn
    assert float(to_modern(_box(0, 0, heading))[0, 6]) == pytest.approx(heading)


@pytest.mark.parametrize("heading", [0.0, 2.0, -2.5])
def test_the_crossed_side_is_the_front(heading: float) -> None:
    places = corners(_box(3, 4, heading))[0]
    crossed = places[sorted({number for pair in FRONT for number in pair})]
    assert len(crossed) == 4
    ahead = crossed.mean(0) - places.mean(0)
    assert_close(ahead, torch.tensor([2 * math.cos(heading), 2 * math.sin(heading), 0.0]), atol=1e-5, rtol=0)


def test_boxes_behind_the_camera_leave_no_mark() -> None:
    camera = lidar_to_image(INTRINSIC, pose(FORWARD, torch.zeros(3)))
    empty = Image.new("RGB", (200, 100))
    assert boxes_in_camera(empty, camera, _box(0, -10, 0.0), torch.tensor([0])).tobytes() == empty.tobytes()
    beside = boxes_in_camera(empty, camera, _box(0, 0.5, 0.0), torch.tensor([0]))  # partly behind: cut, not mirrored
    assert beside.size == empty.size


def test_true_boxes_are_green_and_sheets_hold_all() -> None:
    found = boxes_from_above(torch.zeros(0, 9), torch.zeros(0, dtype=torch.long), _box(3, 3, 0.0), reach=10, side=100)
    assert _coloured(found, TRUTH)
    pictures = {name: Image.new("RGB", (160, 90)) for name in ("A", "B", "C", "D")}
    sheet = surround_sheet(pictures, found, [("A", "B")], width=80)
    assert sheet.size == (80 * 2 + 90, 90)
    assert legend(torch.tensor([0, 0, 7])) == "car 2, pedestrian 1"
    assert legend(torch.zeros(0, dtype=torch.long)) == "nothing"
