"""How much boxes overlap seen from above: as axis-aligned rectangles for training, exactly for suppression."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import LENGTH, WIDTH, YAW, X, Y
from multimodal_zoo.bev.geometry import wrapped


def nearest_rectangles(boxes: Tensor) -> Tensor:
    """Axis-aligned rectangles `(..., 4)`, x and y of the least and of the greatest corner, nearest to boxes.

    Width and length change places where the yaw is nearer to a quarter turn than to none.

    Args:
        boxes: float (..., 7 or 9), see `bev.boxes`.
    """
    turned = wrapped(boxes[..., YAW], 0.5, math.pi).abs() > math.pi / 4
    width, length = boxes[..., WIDTH], boxes[..., LENGTH]
    half_x, half_y = torch.where(turned, length, width) / 2, torch.where(turned, width, length) / 2
    x, y = boxes[..., X], boxes[..., Y]
    return torch.stack([x - half_x, y - half_y, x + half_x, y + half_y], dim=-1)


def aligned_overlaps(first: Tensor, second: Tensor, least: float = 1e-6) -> Tensor:
    """Intersection over union of axis-aligned rectangles, `(...)` of shapes that broadcast.

    Args:
        first: (..., 4), x and y of the least and of the greatest corner.
        second: the same.
        least: a union is taken for at least so large.
    """
    x1, y1, x2, y2 = first.unbind(-1)
    x3, y3, x4, y4 = second.unbind(-1)
    wide = (torch.minimum(x2, x4) - torch.maximum(x1, x3)).clamp(min=0)
    common = wide * (torch.minimum(y2, y4) - torch.maximum(y1, y3)).clamp(min=0)
    union = (x2 - x1) * (y2 - y1) + (x4 - x3) * (y4 - y3) - common
    return common / union.clamp(min=least)


def nearest_overlaps(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of the nearest axis-aligned rectangles, `(n, m)`: the measure of all training.

    Args:
        boxes: (n, 7 or 9), see `bev.boxes`.
        others: (m, 7 or 9).
    """
    return aligned_overlaps(nearest_rectangles(boxes)[:, None], nearest_rectangles(others)[None])


def rotated_overlaps(first: Tensor, second: Tensor, least: float = 1e-8) -> Tensor:
    """Exact intersection over union of rotated rectangles, `(...)` of shapes that broadcast: no sorting, no branches.

    In the frame of the first rectangle the common area is the integral, along the outline of the second, of its height
    cut to the first one's, over the part of x that the first one covers. It depends continuously on everything, so
    rectangles that share sides or corners need no special care.

    Args:
        first: (..., 5), x, y, size along x at yaw 0, size along y, clockwise yaw, see `seen_from_above`.
        second: the same.
        least: a union is taken for at least so large.
    """
    common = _common_area(first, second)
    union = first[..., 2] * first[..., 3] + second[..., 2] * second[..., 3] - common
    return common / union.clamp(min=least)


def _common_area(first: Tensor, second: Tensor) -> Tensor:
    half_x, half_y = first[..., 2] / 2, first[..., 3] / 2
    cosine, sine = first[..., 4].cos(), first[..., 4].sin()
    dx, dy = second[..., 0] - first[..., 0], second[..., 1] - first[..., 1]
    x, y = dx * cosine - dy * sine, dx * sine + dy * cosine
    turn = second[..., 4] - first[..., 4]
    cosine, sine = turn.cos() / 2, turn.sin() / 2
    wide_x, wide_y = second[..., 2] * cosine, -second[..., 2] * sine  # half the sides of the second rectangle
    long_x, long_y = second[..., 3] * sine, second[..., 3] * cosine
    outline = (
        (x - wide_x - long_x, y - wide_y - long_y),
        (x + wide_x - long_x, y + wide_y - long_y),
        (x + wide_x + long_x, y + wide_y + long_y),
        (x - wide_x + long_x, y - wide_y + long_y),
    )
    edges = zip(outline, (*outline[1:], outline[0]), strict=True)
    total = sum((_under_edge(*start, *stop, half_x, half_y) for start, stop in edges), start=torch.zeros_like(half_x))
    return -total.clamp(max=0)  # the outline runs counter-clockwise: its lower sides come first


def _under_edge(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, half_x: Tensor, half_y: Tensor) -> Tensor:
    """Integral of y, cut to `[-half_y, half_y]`, along an edge over the x in `[-half_x, half_x]`; signed."""
    start, stop = torch.clamp(x0, -half_x, half_x), torch.clamp(x1, -half_x, half_x)
    slope = (y1 - y0) / _not_zero(x1 - x0)
    low, high = y0 + (start - x0) * slope, y0 + (stop - x0) * slope
    rise = high - low
    enter, leave = ((side - low) / _not_zero(rise) for side in (-half_y, half_y))  # the cut line bends there
    enter, leave = enter.clamp(0, 1), leave.clamp(0, 1)
    near, far = torch.minimum(enter, leave), torch.maximum(enter, leave)
    cut = [torch.clamp(one, -half_y, half_y) for one in (low, low + near * rise, low + far * rise, high)]
    doubled = near * (cut[0] + cut[1]) + (far - near) * (cut[1] + cut[2]) + (1 - far) * (cut[2] + cut[3])
    return (stop - start) * doubled / 2


def _not_zero(value: Tensor) -> Tensor:
    """The value, or 1 where it is next to nothing: what it divides is so too, or counts for nothing."""
    return torch.where(value.abs() < 1e-20, 1.0, value)
