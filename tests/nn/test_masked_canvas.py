"""Pictures cut out of canvases with a mask."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from multimodal_zoo.nn.masked_canvas import cells_of_canvas, picture_of, valid_box
from multimodal_zoo.nn.patch_cells import cut


def canvas(side: int, top: int, left: int, rows: int, columns: int) -> Tensor:
    mask = torch.zeros(1, side, side)
    mask[0, top : top + rows, left : left + columns] = 1
    return torch.cat((torch.randn(3, side, side), mask))


@pytest.mark.parametrize("box", [(0, 0, 6, 6), (2, 0, 2, 6), (0, 1, 6, 3), (1, 2, 1, 1), (5, 5, 1, 1)])
def test_the_box_of_a_picture(box: tuple[int, int, int, int]) -> None:
    whole = canvas(12, *(2 * part for part in box))
    assert valid_box(whole[3], 2) == box
    top, left, rows, columns = (2 * part for part in box)
    assert torch.equal(picture_of(whole, 2), whole[:3, top : top + rows, left : left + columns])


def test_cells_leave_out_what_no_cell_holds() -> None:
    whole = canvas(12, 2, 0, 10, 6)  # 5 x 3 patches
    cells = cells_of_canvas(whole, 2, 2)
    assert cells.grids == ((2, 1),)
    assert torch.equal(cells.pixels, cut(whole[:3, 2:10, :4], 2, 2).pixels)


@pytest.mark.parametrize(("side", "expected"), [(20, 20), (32, 32), (40, 32), (33, 32), (21, 20)])
def test_a_blank_canvas_gives_its_first_patches(side: int, expected: int) -> None:
    whole = canvas(side, 0, 0, 0, 0)
    assert valid_box(whole[3], 2) is None
    assert torch.equal(picture_of(whole, 2), whole[:3, :expected, :expected])


def test_masks_must_be_rectangles_of_whole_patches() -> None:
    with pytest.raises(ValueError, match="cuts through patches of 2"):
        valid_box(canvas(12, 1, 0, 4, 4)[3], 2)
    with pytest.raises(ValueError, match="cuts through patches of 2"):
        valid_box(canvas(12, 0, 0, 4, 4)[3] * 0.5, 2)
    corner = canvas(12, 0, 0, 4, 8)[3] + canvas(12, 4, 0, 4, 4)[3]
    with pytest.raises(ValueError, match="no rectangle within 4 x 4 patches"):
        valid_box(corner, 2)
    with pytest.raises(ValueError, match=r"canvas of shape \(3, 12, 12\)"):
        picture_of(torch.zeros(3, 12, 12), 2)
