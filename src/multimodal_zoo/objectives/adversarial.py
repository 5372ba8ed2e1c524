"""The adversarial part of a loss: a discriminator, its hinge loss, and the weight that balances it (VQGAN)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.registry import OBJECTIVES

#: Keeps the weight finite where no gradient of the discriminator arrives (delta of VQGAN's equation 7).
DELTA = 1e-6


@OBJECTIVES.register_module(name="adversarial")
class Adversarial(nn.Module):
    """A discriminator that learns beside the tokenizer, and what it adds to the tokenizer's loss.

    Args:
        discriminator: pixels to scores, high for given pictures.
        weight: factor on what is added, beside the adaptive one.
        start: optimiser steps before the discriminator begins to learn and to count.
        largest: the adaptive weight is at most this.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, discriminator: nn.Module, weight: float = 1.0, start: int = 0, largest: float = 1e4) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("start", start), ("largest", largest)):
            if value < 0:
                raise ValueError(f"objective.adversarial.{name} is {value}; expected 0 or more")
        self.discriminator = discriminator
        self.weight, self.start, self.largest = weight, start, largest

    def score(self, made: Tensor) -> Tensor:
        """What the tokenizer should lower: minus the mean score of made pictures (hinge loss, arXiv 1705.02894)."""
        return -self.discriminator(made).float().mean()

    def forward(self, made: Tensor, given: Tensor) -> dict[str, Tensor]:
        """The discriminator's own hinge loss, and the mean scores of both sides.

        Args:
            made: pixels of the tokenizer; no gradient reaches them.
            given: pixels of the same shape.
        """
        scores = self.discriminator(torch.cat((given, made.detach()))).float()
        high, low = scores.chunk(2)
        loss = (F.relu(1 - high).mean() + F.relu(1 + low).mean()) / 2
        return {"discriminator": loss, "score_given": high.detach().mean(), "score_made": low.detach().mean()}

    def adaptive_weight(self, distance: Tensor, score: Tensor, layer: Tensor) -> Tensor:
        """The ratio of the gradients' norms at the last layer (VQGAN, arXiv 2012.09841, equation 7), times `weight`.

        The gradients are averaged over processes first, so that several weigh as one does on the whole batch.

        Args:
            distance: loss of the reconstruction.
            score: from `score`.
            layer: weights of the decoder's last layer.
        """
        wanted = (torch.autograd.grad(loss, layer, retain_graph=True)[0].float() for loss in (distance, score))
        gradients = summed(torch.stack(list(wanted))) / world_size()
        first, second = gradients.flatten(1).norm(dim=1)
        return (first / (second + DELTA)).clamp(max=self.largest).detach() * self.weight
