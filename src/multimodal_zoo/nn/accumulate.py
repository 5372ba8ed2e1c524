"""Gradients of very large matrices, added in place where gradients of earlier batches already stand.

Autograd makes a whole gradient and adds it to the one that is there. For a matrix over a vocabulary that is gigabytes,
of which a batch touches some rows, or which a loss fills piece by piece.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def standing_gradient(ctx: Any, number: int) -> Tensor | None:
    """The `.grad` of a parameter to which this backward pass will add, or None where a gradient must be returned.

    A backward function that adds to it in place returns None for that input. It is only given for a plain parameter
    without hooks in a pass that accumulates (`backward`, not `torch.autograd.grad`).

    Args:
        ctx: what the backward function of an autograd function got.
        number: which input of the function the parameter is.
    """
    node = ctx.next_functions[number][0]
    variable = getattr(node, "variable", None)  # only leaves have one
    if variable is None or variable.grad is None or torch.is_grad_enabled():
        return None
    if variable.grad.layout != torch.strided or hasattr(variable.grad, "placements"):  # sparse, or sharded
        return None
    if variable._backward_hooks or variable._post_accumulate_grad_hooks or variable.grad.dtype != variable.dtype:
        return None
    try:
        accumulating = torch._C._will_engine_execute_node(node)
    except RuntimeError:  # a leaf that torch.autograd.grad was asked for
        return None
    return variable.grad if accumulating else None


def plain_autograd() -> bool:
    """Whether autograd functions that look at their graph can run: no compiler, no function transforms."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


class TokenEmbedding(nn.Embedding):
    """A table of embeddings, one row for each id; what a batch adds to a standing gradient are the rows that it used.

    Args:
        vocab_size: number of ids.
        width: width of a row.
        pad_id: id whose row gets no gradient, or None.
    """

    def __init__(self, vocab_size: int, width: int, pad_id: int | None = None) -> None:
        super().__init__(vocab_size, width, padding_idx=pad_id)

    def forward(self, ids: Tensor) -> Tensor:
        """Rows of ids of any shape, `(..., width)`."""
        watched = torch.is_grad_enabled() and self.weight.requires_grad
        if not watched or not plain_autograd():
            return super().forward(ids)
        return _LookUp.apply(self.weight, ids, -1 if self.padding_idx is None else self.padding_idx)


class _LookUp(torch.autograd.Function):
    """Rows of a table."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, pad_id: int) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.pad_id = len(weight), pad_id
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the table, unless it could be added to the standing one."""
        (ids,) = ctx.saved_tensors
        standing = standing_gradient(ctx, 0)
        if standing is None:
            return torch.ops.aten.embedding_dense_backward(upstream, ids, ctx.rows, ctx.pad_id, False), None, None
        kept = ids.flatten() != ctx.pad_id
        standing.index_add_(0, ids.flatten(), upstream.flatten(0, -2).to(standing.dtype) * kept[:, None])
        return None, None, None
