"""Models that say where their weights come from."""

from __future__ import annotations

from torch import nn


class ShowsWeights(nn.Module):
    """A model whose printed form names its weights, so that nobody takes random ones for trained ones.

    Whoever fills it sets the attribute `weights`.
    """

    def extra_repr(self) -> str:
        """What print() shows."""
        return f"weights: {getattr(self, 'weights', 'random')}"
