"""Anchor grids against loops over their cells."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.bev.anchors import AnchorGrid
from multimodal_zoo.registry import build

SIZES = [[0.9, 2.6, 1.0], [0.4, 0.5, 1.2], [2.0, 3.0, 4.0]]


@pytest.mark.parametrize("motion", [0, 2])
@pytest.mark.parametrize("several", [False, True])
def test_cells_sizes_and_rotations_in_order(motion: int, several: bool) -> None:
    ranges = [[-50, -40, -1.8, 50, 60, -1.8]]
    if several:
        ranges = [*ranges, [-10, -20, -1.0, 11, 22, 0.0], [0, 0, 0, 1, 1, 2]]
    grid = AnchorGrid(ranges, SIZES, [0, 1.57], motion)
    rows, columns = 5, 3
    found = grid.boxes((rows, columns))
    assert found.shape == (rows * columns * 6, 7 + motion)
    wanted = []
    for row, column, size, yaw in itertools.product(range(rows), range(columns), range(3), (0, 1.57)):
        x0, y0, z0, x1, y1, z1 = ranges[size if several else 0]
        x, y = x0 + (column + 0.5) * (x1 - x0) / columns, y0 + (row + 0.5) * (y1 - y0) / rows
        wanted.append([x, y, (z0 + z1) / 2, *SIZES[size], yaw, *[0.0] * motion])
    assert_close(found, torch.tensor(wanted), atol=1e-5, rtol=1e-6)
    assert (grid.per_cell, grid.code_size) == (6, 7 + motion)


def test_precision_device_and_registry() -> None:
    node = {"type": "anchor_grid", "ranges": [[-1, -1, 0, 1, 1, 0]], "sizes": SIZES, "rotations": [0]}
    grid = build(node)
    assert grid.boxes((2, 2), dtype=torch.float64).dtype == torch.float64
    assert grid.boxes((200, 200), "meta").shape == (120000, 9)
    assert grid.boxes((1, 1)).shape == (3, 9)


@pytest.mark.parametrize(
    ("ranges", "sizes", "rotations", "motion", "message"),
    [
        ([[-1, -1, 0, 1, 1, 0]], [], [0], 2, r"anchors\.sizes is \[\]"),
        ([[-1, -1, 0, 1, 1, 0]], [[1, 0, 1]], [0], 2, r"anchors\.sizes is"),
        ([[-1, -1, 0, 1, 1, 0]], SIZES, [], 2, r"anchors\.rotations \(\)"),
        ([[-1, -1, 0, 1, 1, 0]] * 2, SIZES, [0], 2, r"anchors\.ranges has 2 rows; expected 1, or 3"),
        ([[1, -1, 0, 1, 1, 0]], SIZES, [0], 2, r"anchors\.ranges holds"),
        ([[-1, -1, 0, 1]], SIZES, [0], 2, r"anchors\.ranges holds"),
        ([[-1, -1, 0, 1, 1, 0]], SIZES, [0], -1, r"anchors\.motion is -1"),
    ],
)
def test_what_makes_no_grid_is_refused(ranges: list, sizes: list, rotations: list, motion: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnchorGrid(ranges, sizes, rotations, motion)
