"""Accumulated batches that count by what is in them, not one as much as the other."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Window:
    """The batches between two optimiser steps, each with the divisor of its loss.

    A loss per token is a sum over a divisor that differs from batch to batch, so the mean of such losses is not the
    loss of all tokens together. Each batch's loss is weighed by its divisor before the backward pass, relative to the
    first one's, and the gradients are put right before the step. Other losses have the divisor 1: what is put right
    then is the last window of an epoch, which may have fewer batches than the trainer divides by.

    Args:
        batches: how many a full window has; the trainer divides every loss by it.
    """

    def __init__(self, batches: int) -> None:
        self.batches = batches
        self.first: Tensor | None = None
        self.total = torch.zeros(())

    def weigh(self, divisor: Tensor) -> Tensor:
        """The factor on the loss of the next batch.

        Args:
            divisor: scalar, what all processes' sums were divided by, the same on each; 0 for nothing to learn.
        """
        divisor = divisor.detach()
        if self.first is None:
            self.first, self.total = divisor.where(divisor > 0, 1.0), torch.zeros_like(divisor)
        self.total = self.total + divisor
        return divisor / self.first

    def settle(self, gradients: Iterable[Tensor]) -> None:
        """Scale the accumulated gradients to those of all batches together, and begin a new window.

        Args:
            gradients: changed in place; some may be sharded.
        """
        if self.first is None:
            return
        factor = float(self.batches * self.first / self.total) if self.total > 0 else 0.0
        self.first = None
        for gradient in gradients:
            gradient.mul_(factor)
