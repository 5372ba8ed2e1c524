"""Overlaps and suppression the plain way, pair by pair, for tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Point = tuple[float, float]


def outline(box: Sequence[float]) -> list[Point]:
    """Corners of `x, y, w, l, yaw`, yaw clockwise."""
    x, y, width, length, yaw = box
    cosine, sine = math.cos(yaw), math.sin(yaw)
    local = [(sx * width / 2, sy * length / 2) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return [(x + dx * cosine + dy * sine, y - dx * sine + dy * cosine) for dx, dy in local]


def side(start: Point, stop: Point, point: Point) -> float:
    """Above 0 where a point lies to the left of a line."""
    return (stop[0] - start[0]) * (point[1] - start[1]) - (stop[1] - start[1]) * (point[0] - start[0])


def clipped(polygon: list[Point], start: Point, stop: Point) -> list[Point]:
    """The part of a polygon to the left of a line (Sutherland and Hodgman)."""
    found: list[Point] = []
    for one, other in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        here, there = side(start, stop, one), side(start, stop, other)
        if here >= 0:
            found.append(one)
        if here * there < 0:
            share = here / (here - there)
            found.append((one[0] + share * (other[0] - one[0]), one[1] + share * (other[1] - one[1])))
    return found


def area(polygon: list[Point]) -> float:
    """Of a polygon that runs counter-clockwise."""
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(polygon, polygon[1:] + polygon[:1], strict=True)) / 2


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two rotated rectangles."""
    common, other = outline(first), outline(second)
    for start, stop in zip(other, other[1:] + other[:1], strict=True):
        common = clipped(common, start, stop) if common else common
    inside = area(common) if len(common) > 2 else 0.0
    return inside / (first[2] * first[3] + second[2] * second[3] - inside)


def suppressed(scores: Tensor, too_near: Tensor) -> list[int]:
    """Numbers that stay, by falling score; `too_near` (n, n) says which pairs do not go together."""
    stays: list[int] = []
    for number in scores.argsort(descending=True).tolist():
        if not any(bool(too_near[better, number]) for better in stays):
            stays.append(number)
    return stays


def scattered(count: int, spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes (count, 9), float64, and scores, within `spread` metres of the car."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.zeros(count, 9, dtype=torch.float64)
    boxes[:, :2] = (torch.rand(count, 2, generator=generator, dtype=torch.float64) * 2 - 1) * spread
    boxes[:, 3:6] = 0.5 + 4 * torch.rand(count, 3, generator=generator, dtype=torch.float64)
    boxes[:, 6] = 10 * torch.rand(count, generator=generator, dtype=torch.float64) - 5
    boxes[:, 7:] = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return boxes, torch.rand(count, generator=generator, dtype=torch.float64)
