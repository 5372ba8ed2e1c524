"""Emu2's connector: means of squares by hand, gradients, counts that the grid does not give."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.encoders.image_tokens import ImageTokens
from multimodal_zoo.encoders.pooled_tokens import PooledTokens, check_pooling


def seen(rows: int, columns: int, prefix: int = 1, width: int = 5) -> ImageTokens:
    return ImageTokens(torch.randn(2, prefix + rows * columns, width), (rows, columns), prefix)


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize(("rows", "count"), [(4, 1), (4, 4), (4, 16), (6, 4), (6, 9), (1, 1), (5, 25)])
def test_means_of_squares_row_by_row(rows: int, count: int, prefix: int) -> None:
    given, side = seen(rows, rows, prefix), int(count**0.5)
    step = rows // side
    grid = given.tokens[:, prefix:].reshape(2, rows, rows, 5)
    expected = [
        grid[:, row * step : (row + 1) * step, column * step : (column + 1) * step].mean((1, 2))
        for row in range(side)
        for column in range(side)
    ]
    found = PooledTokens(5)(given, count)
    assert_close(found, torch.stack(expected, dim=1))
    assert_close(found[:1], PooledTokens(5)(given._replace(tokens=given.tokens[:1]), count))


def test_each_patch_counts_alike_and_the_class_token_not_at_all() -> None:
    given = seen(4, 4)
    tokens = given.tokens.requires_grad_()
    PooledTokens(5)(given._replace(tokens=tokens), 4).sum().backward()
    assert not tokens.grad[:, 0].any()
    assert_close(tokens.grad[:, 1:], torch.full((2, 16, 5), 0.25))


def test_it_has_no_weights() -> None:
    assert list(PooledTokens(5).parameters()) == []
    assert PooledTokens(5).context_width == 5


@pytest.mark.parametrize("count", [2, 3, 8, 9, 25, 64, 0, -4])
def test_counts_that_squares_do_not_give(count: int) -> None:
    message = rf"^{count} embeddings asked of a picture of 4x4 patches; it gives 1, 4, 16: set .*image_tokens"
    with pytest.raises(ValueError, match=message):
        check_pooling((4, 4), count)


@pytest.mark.parametrize("grid", [(2, 4), (3, 2)])
def test_grids_that_are_no_square(grid: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{grid[0]}x{grid[1]} patches; the grid is not square"):
        PooledTokens(5)(seen(*grid), 1)


def test_the_published_sizes() -> None:
    """A grid of 32 x 32 gives 64 embeddings, 256 in Emu2-Chat."""
    assert [check_pooling((32, 32), count) for count in (1, 64, 256, 1024)] == [1, 8, 16, 32]
