"""Rotary positions: 1-D in the half-split form of LLaMA, 2-D in the interleaved form of EVA-02."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.registry import ENCODERS

#: Up to so many tokens their queries and keys are put together: that costs less than the calls.
FEW = 2


def swap_halves(x: Tensor) -> Tensor:
    """The partners in the planes (k, k + head_dim / 2): `(x1, x2) -> (x2, x1)`; the sign stands in the table."""
    return x.roll(x.shape[-1] // 2, -1)


def turn_neighbours(x: Tensor) -> Tensor:
    """Rotate by 90 degrees in the planes (2k, 2k + 1): `out[2k] = -x[2k + 1]`, `out[2k + 1] = x[2k]`."""
    return torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)


class Rotation(NamedTuple):
    """Tables ready to be applied to the queries and keys of every block.

    Attributes:
        cos: float32, broadcastable to `(batch, heads, tokens, head_dim)`.
        sin: the same shape; with the signs that `turn` leaves out.
        turn: the rotation by 90 degrees that fits the order of the tables.
        spin: `cos + i sin` of each plane, for planes of neighbours: one pass over the tokens instead of five, with the
            same result. None for other planes, and where complex numbers are not compiled or exported.
    """

    cos: Tensor
    sin: Tensor
    turn: Callable[[Tensor], Tensor]
    spin: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:  # the tables stay in float32; only the result is cast
        """Rotate `(batch, heads, tokens, head_dim)`."""
        if self.spin is None or torch.compiler.is_compiling():
            turned = x * self.cos + self.turn(x) * self.sin  # one fused step would round otherwise than others do
            return turned if turned.dtype == x.dtype else turned.to(x.dtype)
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        planes = torch.view_as_complex(exact.unflatten(-1, (-1, 2)))
        return torch.view_as_real(planes * self.spin).flatten(-2).to(x.dtype)

    def both(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate the queries and keys of the same tokens; the few of a decoding step in one pass."""
        if key.shape[2] > FEW or torch.is_grad_enabled():
            return self(query), self(key)
        return self(torch.cat((query, key), dim=1)).split((query.shape[1], key.shape[1]), dim=1)

    def at(self, places: Tensor | None) -> Rotation:
        """The tables for the tokens at places `(batch, n)`, or all of them when `places` is None."""
        if places is None:
            return self
        spin = None if self.spin is None else _at(self.spin, places)
        return Rotation(_at(self.cos, places), _at(self.sin, places), self.turn, spin)


def _at(table: Tensor, places: Tensor) -> Tensor:
    if table.dim() == 2:
        return table[places][:, None]
    index = places[:, None, :, None].expand(-1, 1, -1, table.shape[-1])
    return table.expand(places.shape[0], -1, -1, -1).gather(2, index)


def _check_head_dim(head_dim: int, multiple: int) -> int:
    if head_dim % multiple:
        raise ValueError(f"head_dim {head_dim} is not a multiple of {multiple}, which rotary positions need")
    return head_dim


@ENCODERS.register_module(name="rotary_1d")
class Rotary1d(nn.Module):
    """Positions along a sequence (RoFormer, arXiv 2104.09864; half-split order of LLaMA, arXiv 2302.13971).

    Args:
        head_dim: width of a head, even.
        base: the slowest plane turns by `1 / base` per position, roughly.
    """

    def __init__(self, head_dim: int, base: float = 10000.0) -> None:
        super().__init__()
        self.head_dim, self.base = _check_head_dim(head_dim, 2), base

    def forward(self, positions: Tensor) -> Rotation:
        """Tables for integer positions `(tokens,)` or `(batch, tokens)`, on their device."""
        return _along_sequence(positions, self.head_dim, self.base)


def _along_sequence(positions: Tensor, head_dim: int, base: float) -> Rotation:
    steps = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None].float() * base ** (-steps / head_dim)
    angles = angles if positions.dim() == 1 else angles[:, None]
    angles = torch.cat((angles, angles), dim=-1)
    first, second = angles.sin().chunk(2, dim=-1)
    return Rotation(angles.cos(), torch.cat((-first, second), dim=-1), swap_halves)


def _check_factor(factor: float) -> float:
    if factor < 1:
        raise ValueError(f"rotary.factor is {factor}; sequences become longer by it, so it is at least 1")
    return factor


@ENCODERS.register_module(name="rotary_1d_linear")
class LinearRotary1d(nn.Module):
    """`rotary_1d` with positions pressed together (position interpolation, arXiv 2306.15595).

    Args:
        head_dim: width of a head, even.
        factor: positions are divided by it.
        base: as in `rotary_1d`.
    """

    def __init__(self, head_dim: int, factor: float, base: float = 10000.0) -> None:
        super().__init__()
        self.head_dim, self.factor, self.base = _check_head_dim(head_dim, 2), _check_factor(factor), base

    def forward(self, positions: Tensor) -> Rotation:
        """Tables for integer positions `(tokens,)` or `(batch, tokens)`, on their device."""
        return _along_sequence(positions.float() / self.factor, self.head_dim, self.base)


@ENCODERS.register_module(name="rotary_1d_dynamic")
class DynamicRotary1d(nn.Module):
    """`rotary_1d` whose planes turn slower the longer a sequence is, beyond the length of training (dynamic NTK).

    The base becomes `base (factor n / trained - factor + 1) ** (head_dim / (head_dim - 2))` for a call whose last
    position is `n - 1`, where that is beyond `trained`. Keys that a cache holds keep the base of their call, as in the
    published code.

    Args:
        head_dim: width of a head, even and above 2.
        factor: how fast the base grows.
        trained: most positions of training.
        base: as in `rotary_1d`.

    Raises:
        ValueError: a width or a number of positions that is too small, or a factor below 1.
    """

    def __init__(self, head_dim: int, factor: float, trained: int, base: float = 10000.0) -> None:
        super().__init__()
        if head_dim <= 2 or trained < 1:
            raise ValueError(f"rotary.head_dim is {head_dim}, rotary.trained {trained}; expected above 2 and above 0")
        self.head_dim, self.factor, self.base = _check_head_dim(head_dim, 2), _check_factor(factor), base
        self.trained = trained

    def forward(self, positions: Tensor) -> Rotation:
        """Tables for integer positions `(tokens,)` or `(batch, tokens)`, on their device."""
        length = int(positions.max()) + 1 if positions.numel() else 0
        if length <= self.trained:
            return _along_sequence(positions, self.head_dim, self.base)
        growth = self.factor * length / self.trained - self.factor + 1
        base = self.base * growth ** (self.head_dim / (self.head_dim - 2))
        return _along_sequence(positions, self.head_dim, base)


@ENCODERS.register_module(name="rotary_2d")
class Rotary2d(nn.Module):
    """Positions on a grid of patches (EVA-02, arXiv 2303.11331): half of a head for rows, half for columns.

    A grid of another size than the pretraining grid is mapped onto it, `p = i / n * pretrained_side`, so weights serve
    any resolution.

    Args:
        head_dim: width of a head, a multiple of 4.
        pretrained_side: side of the grid that the positions were learnt on (16 in every published EVA-02).
        base: frequencies are `base ** (-2j / (head_dim / 2))`.
    """

    def __init__(self, head_dim: int, pretrained_side: int = 16, base: float = 10000.0) -> None:
        super().__init__()
        self.head_dim, self.pretrained_side, self.base = _check_head_dim(head_dim, 4), pretrained_side, base

    def forward(self, grid: tuple[int, int], prefix: int, device: torch.device, keep: Tensor | None = None) -> Rotation:
        """Tables for `prefix` unrotated tokens followed by the patches of a grid, row by row.

        Args:
            grid: rows and columns.
            prefix: tokens before the patches (a class token); they are left as they are.
            device: where the tables are made.
            keep: `(batch, kept)` indices of the patches that patch dropout kept, or None for all.
        """
        half = self.head_dim // 2
        steps = torch.arange(0, half, 2, device=device, dtype=torch.float32)
        frequencies = (self.base ** (-steps / half)).repeat_interleave(2)
        rows, columns = (torch.arange(n, device=device) / n * self.pretrained_side for n in grid)
        by_row = (rows[:, None] * frequencies)[:, None].expand(-1, grid[1], -1)
        by_column = (columns[:, None] * frequencies)[None].expand(grid[0], -1, -1)
        angles = torch.cat((by_row, by_column), dim=-1).flatten(0, 1)
        if keep is not None:
            angles = angles[keep][:, None]
        angles = torch.cat((angles.new_zeros(*angles.shape[:-2], prefix, self.head_dim), angles), dim=-2)
        cos, sin = angles.cos(), angles.sin()
        spin = None if torch.compiler.is_compiling() else torch.complex(cos[..., ::2], sin[..., ::2])
        return Rotation(cos, sin, turn_neighbours, spin)
