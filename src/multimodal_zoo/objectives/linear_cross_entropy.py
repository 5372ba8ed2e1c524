"""Cross-entropy of each row of a linear head over many classes, in tiles of rows and classes.

Forward passes over the classes tile by tile and keeps a running log-sum-exp of each row. Backward computes each tile of
logits again and turns it into its gradient in place. A tile spans many rows and few classes, so that both passes read
the matrix once for all rows and write each line of its gradient once. A matrix that is frozen asks for no gradient, so
forward gathers that of the rows on its way and backward computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multimodal_zoo.nn.accumulate import standing_gradient
from multimodal_zoo.nn.checks import outside

#: Most rows of a tile; more are worked off in turns.
TILE_ROWS = 8192
#: Overwrites those logits of a tile that do not count: `mask(rows, classes, logits)`.
Mask = Callable[[slice, slice, Tensor], None]


class RowLosses(NamedTuple):
    """What a head says about the right classes.

    Attributes:
        losses: (rows,), cross-entropy in float32 at least.
        hits: (rows,), bool, whether no class has a higher logit than the right one.
    """

    losses: Tensor
    hits: Tensor


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    held: int = 2**23,
    kept: int = 0,
    mask: Mask | None = None,
) -> RowLosses:
    """Cross-entropy of every row of `hidden @ weight.T + bias`.

    Under autocast the products run in its precision, as those of a linear layer would; sums and exponentials run in
    float32 at least.

    Args:
        hidden: (rows, width); none are allowed.
        weight: (classes, width).
        bias: (classes,), or None.
        target: (rows,) long, each row's class.
        held: how many logits exist at a time; changes memory and speed, not the result.
        kept: how many more wait for the backward pass, which need not compute them again. Only where the matrix has
            no gradient yet: where it has one, of earlier batches, its room is taken.
        mask: overwrites in place the logits of a tile that do not count, with a large negative number; it must do the
            same in backward, and leave the targets.

    Raises:
        ValueError: shapes that do not fit, a target that is no long tensor, classes that there are not (looked at on a
            CPU only; elsewhere their losses are nan), a `held` below one, a negative `kept`.
    """
    check_head(hidden, weight, bias, target)
    if held < 1:
        raise ValueError(f"held is {held}; at least one logit must be held (configuration key: held_logits)")
    if kept < 0:
        raise ValueError(f"kept is {kept}; it must not be negative (configuration key: kept_logits)")
    device = hidden.device.type
    room = kept if torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf and weight.grad is None else 0
    frozen = not any(part is not None and part.requires_grad for part in (weight, bias))
    early = frozen and torch.is_grad_enabled() and hidden.requires_grad
    tiles = _Tiles(len(hidden), len(weight), held, product_dtype(hidden, weight), room, early, mask)
    with torch.autocast(device, enabled=False):
        return RowLosses(*_LinearCrossEntropy.apply(hidden, weight, bias, target, tiles))


def check_head(hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor) -> None:
    """Refuse a head whose parts do not fit.

    Raises:
        ValueError: with the shapes, or the targets.
    """
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        shapes = f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)}"
        raise ValueError(f"hidden must be (rows, width) and weight (classes, width), not {shapes}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({len(weight)},), one number for each class, not {tuple(bias.shape)}")
    if target.shape != hidden.shape[:1] or target.dtype != torch.long:
        found = f"{tuple(target.shape)} of {target.dtype}"
        raise ValueError(f"target must be ({len(hidden)},) of torch.int64, one class for each row, not {found}")
    if (run := outside(target, len(weight))) is not None:
        raise ValueError(f"targets run from {run[0]} to {run[1]}; the head has {len(weight)} classes")


def product_dtype(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """The type in which a linear layer would multiply here: autocast's, or the wider of the two."""
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device) and dtype != torch.float64:  # autocast leaves double precision alone
        dtype = torch.get_autocast_dtype(device)
    return dtype


class _Tiles:
    """The logits of some rows over some classes at a time; `early`: whether forward makes the rows' gradient."""

    def __init__(
        self, rows: int, classes: int, held: int, dtype: torch.dtype, room: int, early: bool, mask: Mask | None
    ) -> None:
        self.rows, self.classes, self.dtype, self.room, self.early = rows, classes, dtype, room, early
        self.mask = mask
        self.high = max(1, min(rows, TILE_ROWS, held))
        self.wide = max(1, min(classes, held // self.high))
        self.kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.taken = False

    def row_ranges(self) -> Iterator[slice]:
        """Ranges of rows."""
        for start in range(0, self.rows, self.high):
            yield slice(start, min(start + self.high, self.rows))

    def class_ranges(self) -> Iterator[slice]:
        """Ranges of classes."""
        for start in range(0, self.classes, self.wide):
            yield slice(start, min(start + self.wide, self.classes))

    def logits(
        self, rows: slice, states: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Class range, lines of the matrix, logits of `states`; the next tile overwrites them, unless they are kept."""
        buffer: Tensor | None = None
        for classes in self.class_ranges():
            if buffer is None or self.taken:
                buffer, self.taken = states.new_empty(len(states) * self.wide), False
            lines = weight[classes].to(self.dtype)
            yield classes, lines, self._product(rows, classes, states, lines, bias, buffer)

    def keep(self, rows: slice, classes: slice, powers: Tensor, highest: Tensor) -> None:
        """Keep `exp(logits - highest)` of a tile if there is room."""
        if powers.numel() <= self.room:
            self.kept[rows.start, classes.start] = powers, highest
            self.room, self.taken = self.room - powers.numel(), True

    def shares(
        self, rows: slice, states: Tensor, weight: Tensor, bias: Tensor | None, sums: Tensor
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Class range, its lines of the matrix and the probabilities; the next tile may overwrite them."""
        buffer: Tensor | None = None
        for classes in self.class_ranges():
            lines = weight[classes].to(self.dtype)
            if (known := self.kept.pop((rows.start, classes.start), None)) is not None:
                yield classes, lines, known[0].mul_((known[1] - sums).exp_()[:, None])
                continue
            buffer = states.new_empty(len(states) * self.wide) if buffer is None else buffer
            logits = self._product(rows, classes, states, lines, bias, buffer)
            yield classes, lines, logits.sub_(sums[:, None]).exp_()

    def _product(
        self, rows: slice, classes: slice, states: Tensor, lines: Tensor, bias: Tensor | None, buffer: Tensor
    ) -> Tensor:
        out = buffer[: len(states) * len(lines)].view(len(states), len(lines))
        found = torch.mm(states, lines.T, out=out)
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        if bias is not None:
            found += bias[classes]
        if self.mask is not None:
            self.mask(rows, classes, found)
        return found


class _LinearCrossEntropy(torch.autograd.Function):
    """Losses in forward; backward recomputes the tiles that were not kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, tiles: _Tiles
    ) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(tiles.dtype, torch.float32)
        sums, own = (hidden.new_full((len(hidden),), float("nan"), dtype=precise) for _ in range(2))
        hits = torch.empty(len(hidden), dtype=torch.bool, device=hidden.device)
        pulls = torch.zeros_like(hidden, dtype=precise) if tiles.early else None
        for rows in tiles.row_ranges():
            wanted = target[rows]
            highest = torch.full_like(sums[rows], float("-inf"))
            total = torch.zeros_like(highest)
            for classes, lines, logits in tiles.logits(rows, hidden[rows].to(tiles.dtype), weight, bias):
                inside, place = _inside(wanted, classes)
                here = logits.gather(1, place[:, None]).squeeze(1)
                own[rows] = torch.where(inside, here, own[rows])
                higher = torch.maximum(highest, logits.amax(1))
                powers = logits.sub_(higher[:, None]).exp_()
                shrink = (highest - higher).exp_()
                total = total * shrink + powers.sum(1)
                highest = higher
                if pulls is not None:
                    add_product(pulls[rows].mul_(shrink[:, None]), powers.to(tiles.dtype), lines)
                tiles.keep(rows, classes, powers, higher)
            if pulls is not None:
                pulls[rows].div_(total[:, None]).sub_(weight[wanted])
            sums[rows] = total.log_().add_(highest)
            hits[rows] = own[rows] >= highest
        ctx.save_for_backward(*((hidden, weight, bias, target, sums) if pulls is None else (pulls.to(hidden.dtype),)))
        ctx.tiles = tiles
        ctx.mark_non_differentiable(hits)
        return sums - own, hits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of those of hidden states, weight and bias that ask for one."""
        wanted, tiles = ctx.needs_input_grad, ctx.tiles
        if tiles.early:
            (pulls,) = ctx.saved_tensors
            return (pulls * upstream[:, None]).to(pulls.dtype), None, None, None, None
        hidden, weight, bias, target, sums = ctx.saved_tensors
        by_row = torch.zeros_like(hidden) if wanted[0] else None
        by_bias = torch.zeros_like(bias) if wanted[2] else None
        standing = standing_gradient(ctx, 1) if wanted[1] else None
        by_class = standing
        if wanted[1] and standing is None:
            by_class = torch.empty_like(weight) if len(hidden) else torch.zeros_like(weight)
        with torch.autocast(hidden.device.type, enabled=False):
            for rows in tiles.row_ranges():
                states, factor = hidden[rows].to(tiles.dtype), upstream[rows, None]
                scaled = (states * factor).to(tiles.dtype)  # cheaper than a factor on every logit
                for classes, lines, gradient in tiles.shares(rows, states, weight, bias, sums[rows]):
                    inside, place = _inside(target[rows], classes)
                    gradient.scatter_add_(1, place[:, None], -inside[:, None].to(gradient.dtype))
                    if by_bias is not None:
                        by_bias[classes] += (factor.T @ gradient).squeeze(0)
                    gradient = gradient.to(tiles.dtype)
                    if by_row is not None:
                        add_product(by_row[rows], gradient, lines)
                    if by_class is not None:
                        fresh = standing is None and rows.start == 0
                        add_product(by_class[classes], gradient.T, scaled, fresh=fresh)
                if by_row is not None:
                    by_row[rows] *= factor
        return by_row, by_class if standing is None else None, by_bias, None, None


def _inside(target: Tensor, classes: slice) -> tuple[Tensor, Tensor]:
    """Which targets lie in a range of classes, and their places there (0 for the others)."""
    place = target - classes.start
    inside = (place >= 0) & (place < classes.stop - classes.start)
    return inside, place.where(inside, 0)


def add_product(total: Tensor, left: Tensor, right: Tensor, fresh: bool = False) -> None:
    """Add `left @ right` to `total`, in one go where the precision is the same.

    Args:
        total: changed in place.
        left: first factor.
        right: second factor.
        fresh: whether what `total` holds is overwritten.
    """
    if total.dtype == left.dtype:
        total.addmm_(left, right, beta=0 if fresh else 1)
    elif fresh:
        total.copy_(left @ right)
    else:
        total.add_(left @ right)
