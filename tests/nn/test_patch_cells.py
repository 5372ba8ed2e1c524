"""Cells of pictures against slices of the pictures, and against the convolution that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.nn.patch_cells import PatchCells, cut, joined, rows_closed


@pytest.mark.parametrize(("patch", "window"), [(2, 2), (3, 1), (1, 3), (2, 3)])
@pytest.mark.parametrize("more", [(0, 0), (1, 3)])
def test_a_cell_holds_its_patches_and_a_patch_its_pixels(patch: int, window: int, more: tuple[int, int]) -> None:
    side = patch * window
    image = torch.randn(3, 2 * side + min(more[0], side - 1), 3 * side + min(more[1], side - 1))
    cells = cut(image, patch, window)
    assert cells.grids == ((2, 3),)
    for row in range(2):
        for column in range(3):
            square = image[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
            for number in range(window**2):
                top, left = number // window * patch, number % window * patch
                expected = square[:, top : top + patch, left : left + patch].flatten()
                assert torch.equal(cells.pixels[row * 3 + column, number], expected)


def test_a_product_with_cells_is_the_convolution() -> None:
    image, weight = torch.randn(3, 12, 20, dtype=torch.float64), torch.randn(5, 3, 2, 2, dtype=torch.float64)
    found = F.linear(cut(image, 2, 2).pixels, weight.flatten(1))
    plane = F.conv2d(image[None], weight, stride=2)[0]
    expected = F.unfold(plane[None], 2, stride=2)[0].T.unflatten(1, (5, 4)).transpose(1, 2)
    assert_close(found, expected)


def test_pictures_come_back_without_what_no_cell_holds() -> None:
    images = [torch.randn(3, 9, 13), torch.randn(3, 4, 4), torch.randn(3, 8, 30)]
    cells = joined([cut(one, 2, 2) for one in images])
    assert (len(cells), cells.sizes, cells.tokens) == (3, [6, 1, 14], [9, 3, 17])
    for image, found in zip(images, cells.images(), strict=True):
        assert torch.equal(found, image[:, : found.shape[1], : found.shape[2]])
        assert all(a - b < 4 for a, b in zip(image.shape, found.shape, strict=True))


def test_rows_are_closed_by_split_tokens() -> None:
    grids = ((2, 3), (1, 1))
    cells, heads, split = torch.randn(7, 4), torch.randn(2, 4), torch.randn(4)

    def expected(first: Tensor, second: Tensor) -> Tensor:
        return torch.stack([first, *cells[:3], split, *cells[3:6], split, second, cells[6], split])

    assert torch.equal(rows_closed(cells, grids, heads, split), expected(*heads))
    assert torch.equal(rows_closed(cells, grids, heads[0], split), expected(heads[0], heads[0]))
    assert rows_closed(cells[:0], (), heads[0], split).shape == (0, 4)


def test_tokens_take_the_type_of_the_cells() -> None:
    parts = torch.randn(1, 4, dtype=torch.float16), ((1, 1),), torch.randn(4), torch.randn(4)
    assert rows_closed(*parts).dtype == torch.float16


def test_pictures_move_together() -> None:
    cells = cut(torch.randn(3, 4, 8), 2, 2)
    moved = cells.to("meta")
    assert (moved.pixels.device.type, moved.grids, moved.patch, moved.window) == ("meta", ((1, 2),), 2, 2)
    assert torch.equal(cells.to("cpu", non_blocking=True).pixels, cells.pixels)


@pytest.mark.parametrize("shape", [(3, 3, 9), (1, 8, 8), (3, 8), (4, 8, 8), (3, 0, 8)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"picture of shape .*at least 4 pixels"):
        cut(torch.zeros(shape), 2, 2)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"grids \[\(1, 2\)\] need pixels \(2, 4, 12\)"):
        PatchCells(torch.zeros(3, 4, 12), ((1, 2),), 2, 2)
    with pytest.raises(ValueError, match=r"\[\(1, 4\), \(2, 2\)\]; expected one way"):
        joined([cut(torch.zeros(3, 4, 4), 2, 2), cut(torch.zeros(3, 4, 4), 1, 4)])
    with pytest.raises(ValueError, match=r"\[\]; expected one way"):
        joined([])
