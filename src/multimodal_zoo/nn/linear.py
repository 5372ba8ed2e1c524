"""Linear layers, with a faster way for the few rows of cached decoding on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.checks import plain_step
from multimodal_zoo.registry import ENCODERS

#: Up to so many rows the product is taken the other way round: of matrices that widen, and of those that narrow.
FEW_WIDENING, FEW_NARROWING = 8, 3
#: Numbers of a matrix below which it stays in the processor's caches, and the further calls cost more than reading it.
SMALL = 2**17


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x weight^T + bias`, the same as torch's within rounding.

    A decoding step multiplies one or two rows by every matrix of the model, so it lasts as long as reading them does.
    The matrix library behind torch reads a matrix two to four times faster as the left factor, `weight x^T`, as long
    as there are few rows. A single row is doubled: one column would be taken for a vector, which is slower where the
    matrix widens.

    Args:
        x: `(..., width)`.
        weight: `(out, width)`.
        bias: `(out,)`, or None.
    """
    if not _few(x, weight):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    count = rows.shape[0]
    if count == 1:
        rows = rows.expand(2, -1).contiguous()
    product = torch.mm(weight, rows.t())[:, :count].t().contiguous()
    if bias is not None:
        product += bias
    return product.view(*x.shape[:-1], -1)


def _few(x: Tensor, weight: Tensor) -> bool:
    """Whether the other way is the faster one: few rows of a decoding step and a large matrix."""
    if not plain_step(x, weight) or weight.numel() < SMALL or x.numel() > FEW_WIDENING * x.shape[-1] or not x.numel():
        return False
    rows, widening = x.numel() // x.shape[-1], weight.shape[0] >= weight.shape[1]
    return widening or 1 < rows <= FEW_NARROWING


@ENCODERS.register_module(name="linear_layer")
class LinearLayer(nn.Linear):
    """A linear layer; in a decoder (`for_decoding`) its product is `linear`.

    Elsewhere it is torch's own: the other way rounds by where in memory a matrix begins, and the towers of a model give
    the same bits wherever their weights were loaded from.

    Args:
        in_features: width of what it reads.
        out_features: width of what it gives.
        bias: whether something is added.
    """

    decoding = False

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)

    def forward(self, x: Tensor) -> Tensor:
        """From `(..., in_features)` to `(..., out_features)`."""
        weight = self.weight
        if self.decoding and weight.numel() >= SMALL:
            return linear(x, weight, self.bias)
        return F.linear(x, weight, self.bias)


def for_decoding(module: nn.Module) -> None:
    """Let all linear layers in a module be fast on the few rows of a decoding step."""
    for part in module.modules():
        if isinstance(part, LinearLayer):
            part.decoding = True
