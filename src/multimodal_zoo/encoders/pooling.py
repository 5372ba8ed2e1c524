"""From the residual stream of a vision transformer to one vector per image."""

from __future__ import annotations

from torch import Tensor, nn

from multimodal_zoo.registry import ENCODERS


@ENCODERS.register_module(name="class_token_pool")
class ClassTokenPool(nn.Module):
    """The first token, normalised (CLIP, EVA-CLIP). Other tokens are not normalised, so the norm costs one row.

    Args:
        norm: the last norm of the tower.
    """

    reads = 1  # how many of the first tokens decide the result; None for all

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, tokens: Tensor) -> Tensor:
        """From `(batch, tokens, width)` to `(batch, width)`."""
        return self.norm(tokens[:, 0])


@ENCODERS.register_module(name="mean_pool")
class MeanPool(nn.Module):
    """The mean of the tokens, normalised.

    Args:
        norm: the last norm of the tower.
        first: first token of the mean: 0 takes class tokens in (EVA's global pooling), 1 leaves one out (timm's).
    """

    reads = None

    def __init__(self, norm: nn.Module, first: int) -> None:
        super().__init__()
        # not `norm`: publishers name the norm behind the mean apart from the one in front of a class token
        self.mean_norm, self.first = norm, first

    @property
    def norm(self) -> nn.Module:
        """The last norm of the tower, under the name that every pool has for it."""
        return self.mean_norm

    def forward(self, tokens: Tensor) -> Tensor:
        """From `(batch, tokens, width)` to `(batch, width)`."""
        return self.mean_norm(tokens[:, self.first :].mean(dim=1))
