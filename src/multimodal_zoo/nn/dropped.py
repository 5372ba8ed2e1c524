"""Causal attention with dropout on its weights, block by block: on a CPU torch would hold every weight at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Queries whose weights exist at a time.
BLOCK = 256


def dropped_causal(query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
    """Causal attention of which a share of the weights is dropped (arXiv 1706.03762), in memory linear in the tokens.

    Backward draws the same random numbers again. For tensors on a CPU.

    Args:
        query: `(batch, heads, tokens, head_dim)`.
        key: `(batch, heads, tokens, head_dim)`.
        value: `(batch, heads, tokens, value_dim)`.
        scale: factor on the logits.
        dropout: probability of dropping a weight; the others grow by `1 / (1 - dropout)`.

    Returns:
        `(batch, heads, tokens, value_dim)`.
    """
    return _DroppedCausal.apply(query, key, value, scale, dropout)


class _DroppedCausal(torch.autograd.Function):
    """Attention in forward; backward recomputes the weights."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, dropout: float) -> Tensor:
        ctx.state = torch.get_rng_state()
        ctx.scale, ctx.dropout = scale, dropout
        ctx.save_for_backward(query, key, value)
        result = value.new_empty((*query.shape[:3], value.shape[3]))
        for rows, weights, kept in _blocks(query, key, scale, dropout):
            result[:, :, rows] = (weights * kept).to(value.dtype) @ value[:, :, : rows.stop]
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        query, key, value = ctx.saved_tensors
        by_query, by_key, by_value = (torch.zeros_like(tensor) for tensor in (query, key, value))
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(ctx.state)
            for rows, weights, kept in _blocks(query, key, ctx.scale, ctx.dropout):
                seen, error = slice(0, rows.stop), upstream[:, :, rows]
                by_value[:, :, seen] += (weights * kept).to(error.dtype).mT @ error
                by_weight = (error @ value[:, :, seen].mT).to(weights.dtype).mul_(kept)
                by_logit = weights * by_weight.sub_((by_weight * weights).sum(-1, keepdim=True)).mul_(ctx.scale)
                by_logit = by_logit.to(query.dtype)
                by_query[:, :, rows] = by_logit @ key[:, :, seen]
                by_key[:, :, seen] += by_logit.mT @ query[:, :, rows]
        return by_query, by_key, by_value, None, None


def _blocks(query: Tensor, key: Tensor, scale: float, dropout: float) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Range of queries, their weights before dropout, and the factor that dropout gives each weight."""
    tokens = query.shape[2]
    exact = torch.promote_types(query.dtype, torch.float32)
    for start in range(0, tokens, BLOCK):
        rows = slice(start, min(start + BLOCK, tokens))
        logits = (query[:, :, rows] @ key[:, :, : rows.stop].mT).to(exact).mul_(scale)
        later = torch.ones(logits.shape[-2:], dtype=torch.bool).triu_(start + 1)
        weights = logits.masked_fill_(later, float("-inf")).softmax(-1)
        yield rows, weights, torch.empty_like(weights).bernoulli_(1 - dropout).div_(1 - dropout)
