"""A residual block that also reads a context: self-attention, cross-attention, feed-forward."""

from __future__ import annotations

from copy import deepcopy

from torch import Tensor, nn

from multimodal_zoo.nn.masks import Mask
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.registry import ENCODERS


@ENCODERS.register_module(name="cross_block")
class CrossBlock(nn.Module):
    """`x += self_attention(norm x)`, `x += cross_attention(norm x, context)`, `x += mlp(norm x)` (T5's decoder).

    Args:
        attention: the mixing of tokens.
        cross_attention: from tokens to the context (`cross_attention`).
        mlp: the mixing of channels.
        norm: prototype of the three norms.
        layer_scale: prototype of what acts on each branch (`branch_dropout`), or None.

    Raises:
        ValueError: parts of different widths.
    """

    def __init__(
        self,
        attention: nn.Module,
        cross_attention: nn.Module,
        mlp: nn.Module,
        norm: nn.Module,
        layer_scale: nn.Module | None = None,
    ) -> None:
        super().__init__()
        width: int = attention.width
        for name, part in (("cross_attention", cross_attention), ("mlp", mlp), ("norm", norm)):
            if part.width != width:
                raise ValueError(f"cross_block.{name} has width {part.width}, cross_block.attention has width {width}")
        self.width = width
        self.norm_1, self.attention = deepcopy(norm), attention
        self.norm_2, self.cross_attention = deepcopy(norm), cross_attention
        self.norm_3, self.mlp = deepcopy(norm), mlp
        for name in ("scale_1", "scale_2", "scale_3"):
            setattr(self, name, Identity() if layer_scale is None else deepcopy(layer_scale))

    def forward(self, tokens: Tensor, context: Tensor, *, mask: Mask | None = None) -> Tensor:
        """Tokens `(batch, tokens, width)` that read each other and a context `(batch, keys, context_width)`.

        Args:
            tokens: the sequence.
            context: what it reads; all of it.
            mask: what each token may see of the others.
        """
        tokens = tokens + self.scale_1(self.attention(self.norm_1(tokens), mask=mask))
        tokens = tokens + self.scale_2(self.cross_attention(self.norm_2(tokens), context))
        return tokens + self.scale_3(self.mlp(self.norm_3(tokens)))
