"""Rules that draw the weights of a whole stack, where they depend on its width and depth."""

from __future__ import annotations

import math

from torch import nn

from multimodal_zoo.nn.transformer import Transformer
from multimodal_zoo.registry import ENCODERS


def _draw(module: nn.Module, std: float) -> None:
    for name, parameter in module.named_parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


@ENCODERS.register_module(name="clip_init")
class ClipInit:
    """The rule of CLIP's text tower (arXiv 2103.00020, after GPT-2): branches that write to the stream start small.

    Queries, keys and values have a deviation of `width ** -0.5`, the output layers of attention and MLP
    `width ** -0.5 * (2 depth) ** -0.5`, the first layer of the MLP `(2 width) ** -0.5`. Blocks hold an `mlp`.
    """

    def __call__(self, stack: Transformer) -> None:
        """Draw the weights of all blocks."""
        narrow = stack.width**-0.5 * (2 * stack.depth) ** -0.5
        for layer in stack.layers:
            _draw(layer.attention.qkv, stack.width**-0.5)
            nn.init.normal_(layer.attention.out.weight, std=narrow)
            nn.init.zeros_(layer.attention.out.bias)
            nn.init.normal_(layer.mlp.fc1.weight, std=(2 * stack.width) ** -0.5)
            nn.init.normal_(layer.mlp.fc2.weight, std=narrow)


@ENCODERS.register_module(name="scaled_init")
class ScaledInit:
    """The rule of BEiT and EVA: one deviation for every matrix and zero biases.

    The layers of block i (from 1) that write to the stream are divided by `sqrt(2 i)`.

    Args:
        std: deviation of the normal distribution.
    """

    def __init__(self, std: float = 0.02) -> None:
        self.std = std

    def __call__(self, stack: Transformer) -> None:
        """Draw the weights of all blocks."""
        for number, layer in enumerate(stack.layers, start=1):
            for part in layer.modules():
                if isinstance(part, nn.Linear):
                    _draw(part, self.std)
            _draw(layer.attention.qkv, self.std)
            last = layer.mlp.fc2 if hasattr(layer.mlp, "fc2") else layer.mlp.down
            for output in (layer.attention.out, last):
                output.weight.data.div_((2 * number) ** 0.5)


@ENCODERS.register_module(name="normal_init")
class NormalInit:
    """The rule of LLaMA and its kin: one deviation for every matrix, zero biases.

    Args:
        std: deviation of the normal distribution.
    """

    def __init__(self, std: float = 0.02) -> None:
        self.std = std

    def __call__(self, stack: Transformer) -> None:
        """Draw the weights of all blocks."""
        for part in stack.modules():
            if isinstance(part, nn.Linear):
                _draw(part, self.std)


@ENCODERS.register_module(name="sub_ln_init")
class SubLnInit:
    """The rule of EVA-02's masked image modelling: Xavier normal matrices, zero biases (MAGNETO, arXiv 2210.06423).

    Values, the output layer of attention and every layer of the MLP are multiplied by `sqrt(log(2 depth))`. Blocks hold
    a `separate_qkv`.
    """

    def __call__(self, stack: Transformer) -> None:
        """Draw the weights of all blocks."""
        gain = math.sqrt(math.log(2 * stack.depth))
        for layer in stack.layers:
            qkv = layer.attention.qkv
            scaled = [qkv.value, layer.attention.out, *(p for p in layer.mlp.modules() if isinstance(p, nn.Linear))]
            for part in (qkv.query, qkv.key, *scaled):
                nn.init.xavier_normal_(part.weight, gain=gain if any(part is other for other in scaled) else 1.0)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
