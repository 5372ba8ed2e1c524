"""Gradient norms over plain and sharded tensors together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Scale gradients so that their joint 2-norm is at most `limit`; returns the norm before.

    Args:
        parameters: parameters with a gradient; some may be sharded (`DTensor`), some plain.
        limit: None only measures.

    Returns:
        a scalar, the same on every rank.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    kinds = [[g for g in gradients if isinstance(g, DTensor)], [g for g in gradients if not isinstance(g, DTensor)]]
    norms = []
    for kind in kinds:
        if kind:
            norm = nn.utils.get_total_norm(kind)
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if limit is not None:
        for sharded in (True, False):
            kind_of = [p for p in parameters if isinstance(p.grad, DTensor) is sharded and p.grad is not None]
            if kind_of:
                nn.utils.clip_grads_with_norm_(kind_of, limit, total)
    return total.detach()
