"""Parts of a residual branch and of a token sequence that act while training: scale, drop path, patch dropout."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.registry import ENCODERS


def check_rate(rate: float, name: str) -> float:
    """Return a probability in [0, 1).

    Raises:
        ValueError: with the name of the key to change.
    """
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} is {rate}; expected a probability in [0, 1)")
    return rate


@ENCODERS.register_module(name="layer_scale")
class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (CaiT, arXiv 2103.17239).

    Args:
        width: width of the tokens.
        initial: first value of every factor.
    """

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.width, self.initial = width, initial
        self.weight = nn.Parameter(torch.full((width,), initial))

    def reset_parameters(self) -> None:
        """Set every factor to its first value."""
        nn.init.constant_(self.weight, self.initial)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scale the channels of `(..., width)`."""
        return tokens * self.weight


@ENCODERS.register_module(name="branch_dropout")
class BranchDropout(nn.Dropout):
    """Dropout on what a residual branch adds (arXiv 1706.03762, section 5.4); fits the slot of `layer_scale`.

    Args:
        rate: probability of zeroing an element while training.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(check_rate(rate, "branch_dropout.rate"))


class DropPath(nn.Module):
    """Stochastic depth (arXiv 1603.09382): drops a branch for whole samples and rescales the others.

    Args:
        rate: probability of dropping; the stack sets it block by block.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = check_rate(rate, "drop_path")

    def forward(self, tokens: Tensor) -> Tensor:
        """Zero whole samples of `(batch, ...)` while training."""
        if self.rate == 0.0 or not self.training:
            return tokens
        keep = 1.0 - self.rate
        kept = tokens.new_empty(tokens.shape[0], *[1] * (tokens.dim() - 1)).bernoulli_(keep)
        return tokens * (kept / keep)

    def extra_repr(self) -> str:
        """The rate, for printing a model."""
        return f"{self.rate:.3g}"


def acted(part: nn.Module, tokens: Tensor) -> Tensor:
    """`part(tokens)`, without the call where the part would give back what it gets: a decoding step has many of them.

    Args:
        part: an identity, a dropout or drop path, or what does something.
        tokens: `(batch, tokens, width)`.
    """
    if type(part) is Identity or (isinstance(part, (DropPath, nn.Dropout)) and not part.training):
        return tokens
    acted: Tensor = part(tokens)
    return acted


@ENCODERS.register_module(name="patch_dropout")
class PatchDropout(nn.Module):
    """Trains on a random subset of the patches (FLIP, arXiv 2212.00794), drawn per image.

    Args:
        rate: share of the patches that is dropped while training; at least one patch stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = check_rate(rate, "patch_dropout")

    def forward(self, tokens: Tensor, prefix: int) -> tuple[Tensor, Tensor | None]:
        """Drop patches behind the first `prefix` tokens, which always stay.

        Returns:
            The tokens, and the `(batch, kept)` indices of the kept patches, or None when all were kept.
        """
        if self.rate == 0.0 or not self.training:
            return tokens, None
        batch, patches = tokens.shape[0], tokens.shape[1] - prefix
        kept = max(1, int(patches * (1 - self.rate)))
        keep = torch.randn(batch, patches, device=tokens.device).topk(kept, dim=1).indices
        chosen = (keep + prefix)[:, :, None].expand(-1, -1, tokens.shape[2])
        return torch.cat((tokens[:, :prefix], tokens.gather(1, chosen)), dim=1), keep
