"""The feed-forward half of a block."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.joined import Joined
from multimodal_zoo.nn.linear import LinearLayer
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.nn.recompute import recompute
from multimodal_zoo.nn.regularize import acted
from multimodal_zoo.registry import ENCODERS


def quick_gelu(x: Tensor) -> Tensor:
    """`x * sigmoid(1.702 x)`, the activation of OpenAI's CLIP weights, by way of torch's fused SiLU."""
    return F.silu(x * 1.702).mul_(1 / 1.702)


def tanh_gelu(x: Tensor) -> Tensor:
    """The tanh approximation of GELU."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "tanh_gelu": tanh_gelu,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "silu": F.silu,
}


def find_activation(name: str) -> Callable[[Tensor], Tensor]:
    """The activation of that name.

    Raises:
        LookupError: with the names that exist.
    """
    if name not in ACTIVATIONS:
        raise LookupError(f"activation: no function named {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


@ENCODERS.register_module(name="mlp")
class Mlp(nn.Module):
    """Two linear layers around an activation.

    Args:
        width: width of the tokens.
        hidden: width between the layers.
        activation: a name of `ACTIVATIONS`; `gelu` is the exact one.
        bias: whether both layers have a bias.
        inner_norm: a norm of width `hidden` before the second layer (sub-LN), or None.
        dropout: probability of zeroing an output element while training.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        activation: str,
        bias: bool = True,
        inner_norm: nn.Module | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.activation = width, activation
        self.act = find_activation(activation)
        self.fc1 = LinearLayer(width, hidden, bias)
        self.inner_norm = inner_norm if inner_norm is not None else Identity()
        self.fc2 = LinearLayer(hidden, width, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """From `(..., width)` to `(..., width)`."""
        return acted(self.dropout, recompute(self._second, self.fc1(tokens)))

    def _second(self, hidden: Tensor) -> Tensor:
        return self.fc2(acted(self.inner_norm, self.act(hidden)))


@ENCODERS.register_module(name="swiglu")
class SwiGLU(nn.Module):
    """Gated feed-forward (arXiv 2002.05202): `down(norm(silu(gate x) * up x))`.

    Args:
        width: width of the tokens.
        hidden: width between the layers.
        bias: whether the three layers have a bias.
        inner_norm: a norm of width `hidden` before the last layer (sub-LN of EVA-02), or None.
        dropout: probability of zeroing an output element while training.
    """

    joined: Joined | None = None

    def __init__(
        self, width: int, hidden: int, bias: bool, inner_norm: nn.Module | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width = width
        self.gate = LinearLayer(width, hidden, bias)
        self.up = LinearLayer(width, hidden, bias)
        self.inner_norm = inner_norm if inner_norm is not None else Identity()
        self.down = LinearLayer(hidden, width, bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """From `(..., width)` to `(..., width)`."""
        if self.joined is not None:
            gate, up = self.joined(tokens).chunk(2, dim=-1)
        else:
            gate, up = self.gate(tokens), self.up(tokens)
        return acted(self.dropout, recompute(self._second, gate, up))

    def together(self) -> tuple[nn.Module, ...]:
        """The layers that read the same."""
        return self.gate, self.up

    def _second(self, gate: Tensor, up: Tensor) -> Tensor:
        active = F.silu(gate)
        # in place where no gradient is wanted: fresh memory costs more than the product
        product = active * up if torch.is_grad_enabled() else active.mul_(up)
        return self.down(acted(self.inner_norm, product))
