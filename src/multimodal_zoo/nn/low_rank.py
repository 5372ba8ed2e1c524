"""Low-rank adapters (LoRA, arXiv 2106.09685) beside linear layers of a stack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.linear import LinearLayer
from multimodal_zoo.nn.regularize import check_rate
from multimodal_zoo.nn.transformer import Transformer
from multimodal_zoo.registry import ENCODERS


class LowRank(nn.Module):
    """`scale * up down x`, which begins as nothing.

    Args:
        in_features: width of what it reads.
        out_features: width of what it gives.
        rank: width between the two matrices.
        scale: factor on the result.
        dropout: probability of zeroing an element of what it reads while training.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.scale, self.dropout = scale, nn.Dropout(dropout)
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.empty(out_features, rank))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform values in front, zeros behind."""
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        nn.init.zeros_(self.up)

    def product(self) -> Tensor:
        """What is added to the layer's matrix, `(out_features, in_features)`, float32 at least."""
        exact = torch.promote_types(self.up.dtype, torch.float32)
        return self.scale * (self.up.to(exact) @ self.down.to(exact))

    def forward(self, x: Tensor) -> Tensor:
        """From `(..., in_features)` to `(..., out_features)`."""
        return self.scale * F.linear(F.linear(self.dropout(x), self.down), self.up)


class AdaptedLinear(LinearLayer):
    """A linear layer with an adapter beside it.

    Args:
        layer: the plain layer, whose tensors it takes over.
        adapter: what is added.
    """

    def __init__(self, layer: LinearLayer, adapter: LowRank) -> None:
        nn.Module.__init__(self)  # the layer's own would draw weights, and all that is drawn later would differ
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight, self.bias, self.decoding = layer.weight, layer.bias, layer.decoding
        self.adapter: LowRank | None = adapter

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result and the adapter's."""
        plain = super().forward(x)
        return plain if self.adapter is None else plain + self.adapter(x).to(plain.dtype)

    @torch.no_grad()
    def merged(self) -> LinearLayer:
        """A plain layer with the same results outside of training; it takes over the tensors."""
        with torch.device("meta"):
            layer = LinearLayer(self.in_features, self.out_features, self.bias is not None)
        layer.weight, layer.bias, layer.decoding = self.weight, self.bias, self.decoding
        if self.adapter is not None:
            layer.weight.copy_(self.weight.to(torch.float32) + self.adapter.product())
        return layer


@ENCODERS.register_module(name="low_rank")
class LowRankAdapter:
    """Puts adapters beside some layers of every block of a stack; which parameters train says the optimiser.

    Args:
        rank: width between an adapter's matrices.
        alpha: adapters are scaled by `alpha / rank`.
        dropout: probability of zeroing an element of what an adapter reads while training.
        layers: names of linear layers inside a block.

    Raises:
        ValueError: a rank below 1, no layers, or a share that is none.
    """

    def __init__(self, rank: int, alpha: float, dropout: float, layers: Sequence[str]) -> None:
        if rank < 1 or not layers:
            raise ValueError(f"adapter.rank is {rank}, adapter.layers {list(layers)}; expected 1 or more, and names")
        self.rank, self.scale, self.layers = rank, alpha / rank, list(layers)
        self.dropout = check_rate(dropout, "adapter.dropout")

    def __call__(self, stack: Transformer) -> None:
        """Change the layers of all blocks.

        Raises:
            ValueError: a name of no linear layer, with those that there are.
        """
        for block in stack.layers:
            known = {name: part for name, part in block.named_modules() if isinstance(part, LinearLayer)}
            for name in self.layers:
                if name not in known:
                    raise ValueError(f"adapter.layers names {name!r}; a block's linear layers are {', '.join(known)}")
                layer = known[name]
                adapter = LowRank(layer.in_features, layer.out_features, self.rank, self.scale, self.dropout)
                block.set_submodule(name, AdaptedLinear(layer, adapter))


def adapted(model: nn.Module) -> dict[str, AdaptedLinear]:
    """The layers of a model that have an adapter, by name."""
    return {
        name: part
        for name, part in model.named_modules()
        if isinstance(part, AdaptedLinear) and part.adapter is not None
    }


def merge_adapters(model: nn.Module) -> int:
    """Put every adapter into the matrix beside it, in place; gives back how many there were.

    Raises:
        ValueError: a quantised model, whose matrices hold no such sums.
    """
    found = adapted(model)
    if found and (bits := getattr(model, "quantized", None)):
        raise ValueError(f"merge_adapters: the model is in {bits}; merge it in full precision, then quantise it")
    for name, layer in found.items():
        model.set_submodule(name, layer.merged())
    return len(found)


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """A model with plain layers for a while: to fill them from a checkpoint that has no adapters."""
    kept = {name: layer.adapter for name, layer in adapted(model).items()}
    layers = {name: model.get_submodule(name) for name in kept}
    try:
        for layer in layers.values():
            layer.adapter = None  # type: ignore[assignment]
        yield
    finally:
        for name, layer in layers.items():
            layer.adapter = kept[name]  # type: ignore[assignment]
