"""The sigmoid loss (SigLIP, Zhai et al., arXiv 2303.15343, algorithm 1): every pair is a question of yes or no."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from multimodal_zoo import ENCODERS, OBJECTIVES
from multimodal_zoo.encoders.dual_encoder import DualEncoder
from multimodal_zoo.nn.processes import gather_with_gradient, rank
from multimodal_zoo.objectives.batch import ImageTextBatch


@ENCODERS.register_module(name="logit_bias")
class LogitBias(nn.Module):
    """A learned number that is added to every logit: nearly all pairs are to be answered with no.

    Args:
        initial: first value.
    """

    def __init__(self, initial: float = -10.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(initial))

    def forward(self) -> Tensor:
        """The bias, a scalar."""
        return self.weight


def sigmoid_loss(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Mean over images of the summed losses of all their pairs; several processes share all texts.

    Args:
        image: `(batch, width)`, L2-normalised; row i belongs to row i of `text`.
        text: `(batch, width)`, L2-normalised.
        scale: scalar, the inverse temperature.
        bias: scalar.
    """
    logits = scale * image @ gather_with_gradient(text).T + bias
    own = torch.arange(len(image), device=image.device)
    signs = -torch.ones_like(logits)
    signs[own, own + rank() * len(image)] = 1.0
    return -logsigmoid(signs * logits).sum(1).mean()


@OBJECTIVES.register_module(name="sigmoid_pairs")
class SigmoidPairs(nn.Module):
    """SigLIP's objective for any dual encoder with a head `logit_bias`."""

    def check(self, model: DualEncoder) -> None:
        """Refuse a model without a bias, before the first step."""
        if "logit_bias" not in model.heads:
            raise ValueError("sigmoid_pairs needs a bias: +head@model.heads.logit_bias=logit_bias")

    def forward(self, model: DualEncoder, batch: ImageTextBatch) -> dict[str, Tensor]:
        """The loss of this process's images, and two figures to watch."""
        image, text, scale = model(batch.images, batch.ids)
        bias = model.heads["logit_bias"]()
        return {
            "loss": sigmoid_loss(image, text, scale, bias),
            "logit_scale": scale.detach(),
            "logit_bias": bias.detach(),
        }
