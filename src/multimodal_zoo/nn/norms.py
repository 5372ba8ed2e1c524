"""Normalisation over the width of a token, with statistics in float32 at least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.checks import plain_step
from multimodal_zoo.nn.recompute import recompute
from multimodal_zoo.registry import ENCODERS

#: Up to so many tokens on a CPU a norm lasts as long as its calls, so that a small matrix product takes fewer.
FEW = 32


@ENCODERS.register_module(name="layer_norm")
class LayerNorm(nn.LayerNorm):
    """Layer normalisation (arXiv 1607.06450); torch keeps the statistics of half-precision input in float32.

    Args:
        width: size of the last axis.
        eps: added to the variance; published checkpoints differ (1e-5 CLIP, 1e-6 EVA), so it has no default.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)
        self.width = width


@ENCODERS.register_module(name="rms_norm")
class RMSNorm(nn.Module):
    """Root-mean-square normalisation (arXiv 1910.07467): no mean subtracted, no bias.

    The scaled input is computed in float32, cast to the weight's type, then multiplied by the weight: the order of
    LLaMA, T5 and EVA-CLIP-18B, which matters in half precision.

    Args:
        width: size of the last axis.
        eps: added to the mean of squares.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width))

    def reset_parameters(self) -> None:
        """Set the weight to 1."""
        nn.init.ones_(self.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        """Normalise the last axis; the result has the dtype of the weight."""
        return recompute(self._normalise, tokens)

    def _normalise(self, tokens: Tensor) -> Tensor:
        if plain_step(tokens, self.weight) and tokens.numel() <= FEW * self.width:
            rows = tokens.reshape(-1, 1, self.width)
            factors = torch.bmm(rows, rows.mT).mul_(1 / self.width).add_(self.eps).rsqrt_()
            return (rows * factors).mul_(self.weight).view(tokens.shape)
        exact = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
        scaled = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + self.eps)
        return scaled.to(self.weight.dtype) * self.weight

    def extra_repr(self) -> str:
        """Width and eps, for printing a model."""
        return f"{self.width}, eps={self.eps}"


@ENCODERS.register_module(name="identity")
class Identity(nn.Module):
    """Gives back what it gets: stands where a part is not wanted."""

    def __init__(self) -> None:  # nn.Module's own takes anything
        super().__init__()

    def forward(self, tokens: Tensor) -> Tensor:
        """The tokens, as they are."""
        return tokens
