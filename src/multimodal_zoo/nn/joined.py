"""Layers that read the same input, as one product, while a small model decodes on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.linear import SMALL, LinearLayer


class Joined(NamedTuple):
    """Matrices one below the other.

    Attributes:
        weight: `(sum of the outputs, width)`.
        bias: of as many numbers, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        """The results of all layers side by side, `(..., sum of the outputs)`, of `(..., width)`."""
        return F.linear(x, self.weight, self.bias)


class ReadsTogether(Protocol):
    """A module some of whose layers read the same input; it uses `joined` where that is not None."""

    joined: Joined | None

    def together(self) -> Sequence[nn.Module]:
        """These layers."""
        ...


def join(layers: Sequence[nn.Module]) -> Joined | None:
    """The layers as one, copied; None where that would not be the same, or no faster.

    Small matrices lie in the processor's caches, and a step lasts as long as its calls; larger ones are better read
    where they are. Layers that are adapted, quantised or watched by hooks are called one by one.
    """
    plain = [layer for layer in layers if type(layer) is LinearLayer and _is_quiet(layer)]
    biases = [layer.bias for layer in plain if layer.bias is not None]
    if len(plain) < len(layers) or len(biases) not in (0, len(plain)):
        return None
    return Joined(torch.cat([layer.weight for layer in plain]), torch.cat(biases) if biases else None)


def _is_quiet(layer: LinearLayer) -> bool:
    weight = layer.weight
    small = type(weight) is nn.Parameter and weight.numel() < SMALL and weight.device.type == "cpu"
    return small and not (layer._forward_hooks or layer._forward_pre_hooks)


@contextmanager
def joined_layers(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Join what can be joined within each of some modules; their weights must stay as they are meanwhile."""
    parts = [cast("ReadsTogether", part) for part in modules if hasattr(type(part), "together")]
    for part in parts:
        part.joined = join(part.together())
    try:
        yield
    finally:
        for part in parts:
            part.joined = None
