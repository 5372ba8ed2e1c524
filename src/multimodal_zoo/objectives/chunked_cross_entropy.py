"""Cross-entropy of a linear head over many classes, such as a vocabulary, that never holds all logits.

Forward passes over the rows in blocks and keeps one log-sum-exp a row. Backward computes each block of logits again,
turns it into its gradient in place and spends one product on either side. Beside the gradients themselves, memory is
that of one block of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from multimodal_zoo.objectives.token_losses import add_product, check_head, product_dtype, token_losses

#: Overwrites those logits of a range of rows that do not count: `mask(rows, logits)`.
Mask = Callable[[slice, Tensor], None]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    block_size: int = 256,
    mask: Mask | None = None,
    row_weights: Tensor | None = None,
) -> Tensor:
    """Mean over rows of the cross-entropy of `hidden @ weight.T + bias`, or its weighted sum.

    Under autocast the products run in its precision, as those of a linear layer would; sums and exponentials run in
    float32 at least.

    Args:
        hidden: (rows, width).
        weight: (classes, width).
        bias: (classes,), or None.
        target: (rows,) long, each row's class; where a row's weight is 0 it may be anything.
        block_size: rows whose logits are held at a time; changes memory and speed, not the result.
        mask: overwrites in place the logits of a range of rows that do not count, with a large negative number; it
            must do the same in backward, and leave the targets.
        row_weights: (rows,), float, how much each row counts; rows of weight 0 cost nothing. The result is then the
            sum of weight times cross-entropy, which the caller divides by what it wants. None: the plain mean.

    Returns:
        Scalar, in float32 at least. Without rows it is 0, and so are the gradients.

    Raises:
        ValueError: shapes that do not fit, a target that is no long tensor, a `block_size` below one, or a mask with
            weights.
    """
    check_head(hidden, weight, bias, target)
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; it must be at least 1 (configuration key: block_size)")
    if row_weights is not None:
        return _weighted(hidden, weight, bias, target, block_size, mask, row_weights)
    blocks = _Blocks(target, block_size, mask, product_dtype(hidden, weight))
    with torch.autocast(hidden.device.type, enabled=False):
        return _LinearCrossEntropy.apply(hidden, weight, bias, target, blocks)


def _weighted(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    block_size: int,
    mask: Mask | None,
    row_weights: Tensor,
) -> Tensor:
    if row_weights.shape != target.shape:
        raise ValueError(f"row_weights must be ({len(target)},), one for each row, not {tuple(row_weights.shape)}")
    if mask is not None:
        raise ValueError("linear_cross_entropy takes a mask or row_weights, not both")
    counted = row_weights.nonzero().squeeze(1)
    losses = token_losses(hidden[counted], weight, bias, target[counted], block_size * len(weight)).losses
    return (row_weights[counted].to(losses.dtype) * losses).sum()


class _Blocks:
    """The logits of a few rows at a time."""

    def __init__(self, target: Tensor, block_size: int, mask: Mask | None, dtype: torch.dtype) -> None:
        self.target, self.block_size, self.mask, self.dtype = target, block_size, mask, dtype

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Iterator[tuple[slice, Tensor]]:
        """Row range and logits of each block; the next block overwrites them."""
        rows = min(self.block_size, len(hidden))
        buffer = hidden.new_empty(rows, len(weight))
        for start in range(0, len(hidden), max(rows, 1)):
            block = slice(start, min(start + rows, len(hidden)))
            found = torch.mm(hidden[block], weight.T, out=buffer[: block.stop - start])
            found = found.to(torch.promote_types(found.dtype, torch.float32))
            if bias is not None:
                found += bias
            if self.mask is not None:
                self.mask(block, found)
            yield block, found


class _LinearCrossEntropy(torch.autograd.Function):
    """Loss in forward; backward recomputes the blocks."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, blocks: _Blocks
    ) -> Tensor:
        precise = torch.promote_types(blocks.dtype, torch.float32)
        sums, own = (hidden.new_empty(len(hidden), dtype=precise) for _ in range(2))
        for block, logits in blocks.logits(hidden.to(blocks.dtype), weight.to(blocks.dtype), bias):
            own[block] = logits.gather(1, target[block, None]).squeeze(1)
            highest = logits.amax(1)
            sums[block] = logits.sub_(highest[:, None]).exp_().sum(1).log_().add_(highest)
        ctx.save_for_backward(hidden, weight, bias, target, sums)
        ctx.blocks = blocks
        return (sums - own).sum() / max(len(hidden), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of those of hidden states, weight and bias that ask for one."""
        hidden, weight, bias, target, sums = ctx.saved_tensors
        wanted, blocks = ctx.needs_input_grad, ctx.blocks
        states, matrix = hidden.to(blocks.dtype), weight.to(blocks.dtype)
        by_row = torch.empty_like(hidden) if wanted[0] else None
        by_class = torch.zeros_like(weight) if wanted[1] else None
        by_bias = torch.zeros_like(bias) if wanted[2] else None
        factor = upstream / max(len(hidden), 1)
        with torch.autocast(hidden.device.type, enabled=False):
            for block, logits in blocks.logits(states, matrix, bias):
                gradient = logits.sub_(sums[block, None]).exp_()
                gradient.scatter_add_(1, target[block, None], gradient.new_full((len(gradient), 1), -1.0))
                gradient.mul_(factor)
                if by_bias is not None:
                    by_bias += gradient.sum(0)
                gradient = gradient.to(blocks.dtype)
                if by_row is not None:
                    by_row[block] = gradient @ matrix
                if by_class is not None:
                    add_product(by_class, gradient.T, states[block])
        return by_row, by_class, by_bias, None, None
