"""Boxes in the LiDAR frame: the layout of the library, and the modern one for its outer edges.

Rows of the library are `x, y, z, w, l, h, yaw, vx, vy` in metres, radians and metres per second, as the published
checkpoints of Fast-BEV (arXiv 2301.12511) know them: z is that of the BOTTOM's centre, at yaw 0 the width w lies along
x and the length l along y, and yaw grows CLOCKWISE seen from above. Modern rows are `x, y, z, length, width, height,
yaw, vx, vy` with the centre of gravity and a counter-clockwise yaw of the length's axis from x.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multimodal_zoo.bev.geometry import wrapped

#: Names of the labels 0 to 9; -1 stands for an object of no class.
CLASSES = (
    "car",
    "truck",
    "trailer",
    "bus",
    "construction_vehicle",
    "bicycle",
    "motorcycle",
    "pedestrian",
    "traffic_cone",
    "barrier",
)
#: Columns of a box.
X, Y, Z, WIDTH, LENGTH, HEIGHT, YAW, VX, VY = range(9)
#: Columns that describe a box seen from above: centre, sizes, yaw.
BEV_COLUMNS = (X, Y, WIDTH, LENGTH, YAW)


def seen_from_above(boxes: Tensor) -> Tensor:
    """Rectangles `(..., 5)` of boxes `(..., 7 or 9)`: x, y, w, l, yaw."""
    return torch.stack([boxes[..., column] for column in BEV_COLUMNS], dim=-1)


def to_modern(boxes: Tensor) -> Tensor:
    """Rows in the modern layout, yaw in [-pi, pi); see the head of this module.

    Args:
        boxes: float (..., 7 or 9), in the layout of the library.
    """
    x, y, bottom, width, length, height, yaw, *velocity = boxes.unbind(-1)
    turned = wrapped(-yaw - math.pi / 2, 0.5, 2 * math.pi)
    return torch.stack([x, y, bottom + height / 2, length, width, height, turned, *velocity], dim=-1)


def from_modern(boxes: Tensor) -> Tensor:
    """Rows in the layout of the library, yaw in [-pi, pi); the way back from `to_modern`.

    Args:
        boxes: float (..., 7 or 9), in the modern layout.
    """
    x, y, centre, length, width, height, yaw, *velocity = boxes.unbind(-1)
    turned = wrapped(-yaw - math.pi / 2, 0.5, 2 * math.pi)
    return torch.stack([x, y, centre - height / 2, width, length, height, turned, *velocity], dim=-1)


def gravity_centres(boxes: Tensor) -> Tensor:
    """Centres `(..., 3)` of boxes `(..., 7 or 9)`, half a height above the bottom's."""
    return torch.stack([boxes[..., X], boxes[..., Y], boxes[..., Z] + boxes[..., HEIGHT] / 2], dim=-1)


def corners(boxes: Tensor) -> Tensor:
    """The eight corners `(..., 8, 3)` of boxes `(..., 7 or 9)`.

    The first four are the bottom's, in turn around it, beginning at the smaller w and smaller l side; the last four
    stand above them. The front has corners 0, 3, 4 and 7: a box of yaw 0 faces -y, since its heading is -yaw - pi / 2.
    """
    across = boxes.new_tensor([-0.5, -0.5, 0.5, 0.5, -0.5, -0.5, 0.5, 0.5]) * boxes[..., WIDTH, None]
    along = boxes.new_tensor([-0.5, 0.5, 0.5, -0.5, -0.5, 0.5, 0.5, -0.5]) * boxes[..., LENGTH, None]
    up = boxes.new_tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]) * boxes[..., HEIGHT, None]
    cosine, sine = boxes[..., YAW, None].cos(), boxes[..., YAW, None].sin()
    moved = (across * cosine + along * sine, -across * sine + along * cosine, up)
    return torch.stack([boxes[..., axis, None] + shift for axis, shift in enumerate(moved)], dim=-1)
