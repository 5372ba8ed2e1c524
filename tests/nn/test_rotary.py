"""Rotary positions against the formulas, one plane at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.nn.rotary import DynamicRotary1d, LinearRotary1d, Rotary1d, Rotary2d


def test_one_dimension_turns_halves() -> None:
    x = torch.randn(1, 1, 5, 8)
    found = Rotary1d(8, base=100.0)(torch.arange(5))(x)
    for p in range(5):
        for k in range(4):
            angle = p * 100.0 ** (-2 * k / 8)
            a, b = x[0, 0, p, k], x[0, 0, p, k + 4]
            assert_close(found[0, 0, p, k], a * math.cos(angle) - b * math.sin(angle))
            assert_close(found[0, 0, p, k + 4], b * math.cos(angle) + a * math.sin(angle))


def test_positions_may_differ_by_row() -> None:
    x = torch.randn(2, 3, 4, 8)
    rotary = Rotary1d(8)
    both = rotary(torch.tensor([[0, 1, 2, 3], [5, 6, 7, 8]]))(x)
    assert_close(both[1:], rotary(torch.arange(5, 9))(x[1:]))


def test_only_distances_matter() -> None:
    query, key = torch.randn(1, 1, 1, 16, dtype=torch.float64), torch.randn(1, 1, 1, 16, dtype=torch.float64)
    rotary = Rotary1d(16)
    near, far = ((rotary(torch.tensor([p + 3]))(query) * rotary(torch.tensor([p]))(key)).sum() for p in (0, 11))
    assert_close(near, far, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(4, 4), (6, 6), (3, 5)])
def test_two_dimensions_turn_neighbours_of_patches_only(grid: tuple[int, int]) -> None:
    x = torch.randn(1, 1, 1 + grid[0] * grid[1], 8)
    found = Rotary2d(8, pretrained_side=4)(grid, 1, x.device)(x)
    assert torch.equal(found[:, :, 0], x[:, :, 0])
    for row in range(grid[0]):
        for column in range(grid[1]):
            at = 1 + row * grid[1] + column
            for plane in range(4):
                place = row / grid[0] * 4 if plane < 2 else column / grid[1] * 4
                angle = place * 10000 ** (-2 * (plane % 2) / 4)
                a, b = x[0, 0, at, 2 * plane], x[0, 0, at, 2 * plane + 1]
                assert_close(found[0, 0, at, 2 * plane], a * math.cos(angle) - b * math.sin(angle))
                assert_close(found[0, 0, at, 2 * plane + 1], b * math.cos(angle) + a * math.sin(angle))


def test_kept_patches_carry_their_own_angles() -> None:
    x = torch.randn(2, 3, 17, 8)
    keep = torch.tensor([[3, 9, 0], [15, 1, 2]])
    rotary = Rotary2d(8)
    whole = rotary((4, 4), 1, x.device)(x)
    index = torch.cat((torch.zeros(2, 1, dtype=torch.long), keep + 1), 1)[:, None, :, None].expand(-1, 3, -1, 8)
    assert_close(rotary((4, 4), 1, x.device, keep)(x.gather(2, index)), whole.gather(2, index))


def test_complex_tables_turn_as_the_real_ones() -> None:
    places = torch.tensor([[0, 7], [16, 3]])
    keep = torch.rand(2, 16).argsort(dim=1)
    for rotation in (Rotary2d(8)((4, 4), 1, places.device), Rotary2d(8)((4, 4), 1, places.device, keep)):
        for tables, tokens in ((rotation, 17), (rotation.at(places), 2)):
            x = torch.randn(2, 3, tokens, 8, requires_grad=True)
            found, expected = tables(x), tables._replace(spin=None)(x)
            weights = torch.randn_like(found)
            assert_close(found, expected)
            assert_close(*(torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)))


def test_half_precision_comes_back_in_half_precision() -> None:
    x = torch.randn(1, 1, 4, 8)
    rotation = Rotary1d(8)(torch.arange(4))
    assert rotation(x.half()).dtype == torch.float16
    assert_close(rotation(x.half()).float(), rotation(x), atol=2e-3, rtol=2e-3)


def test_head_sizes_that_planes_do_not_fill_are_refused() -> None:
    with pytest.raises(ValueError, match="head_dim 6 is not a multiple of 4"):
        Rotary2d(6)
    with pytest.raises(ValueError, match="head_dim 7"):
        Rotary1d(7)


def test_stretched_positions_are_those_of_a_shorter_sequence() -> None:
    x = torch.randn(2, 3, 7, 8)
    pressed, plain = LinearRotary1d(8, factor=4.0)(torch.arange(0, 28, 4)), Rotary1d(8)(torch.arange(7))
    assert_close(pressed(x), plain(x))


def test_the_base_grows_beyond_the_length_of_training() -> None:
    x, dynamic = torch.randn(1, 1, 12, 8), DynamicRotary1d(8, factor=2.0, trained=6, base=100.0)
    assert_close(dynamic(torch.arange(6))(x[:, :, :6]), Rotary1d(8, base=100.0)(torch.arange(6))(x[:, :, :6]))
    grown = Rotary1d(8, base=100.0 * (2 * 12 / 6 - 1) ** (8 / 6))
    assert_close(dynamic(torch.arange(12))(x), grown(torch.arange(12))(x))
    with pytest.raises(ValueError, match=r"rotary\.factor is 0\.5"):
        LinearRotary1d(8, factor=0.5)
    with pytest.raises(ValueError, match=r"rotary\.head_dim is 2, rotary\.trained 6"):
        DynamicRotary1d(2, factor=2.0, trained=6)


@pytest.mark.parametrize("tokens", [1, 2, 5])
@pytest.mark.parametrize("learning", [False, True])
def test_queries_and_keys_turn_together_as_alone(tokens: int, learning: bool) -> None:
    rotation = Rotary1d(8)(torch.arange(3, 3 + tokens))
    query, key = torch.randn(2, 4, tokens, 8), torch.randn(2, 2, tokens, 8)
    with torch.set_grad_enabled(learning):
        turned = rotation.both(query, key)
    assert_close(turned[0], rotation(query), rtol=0, atol=0)
    assert_close(turned[1], rotation(key), rtol=0, atol=0)
