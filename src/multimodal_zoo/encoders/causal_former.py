"""Emu's Causal Former (arXiv 2307.05222): from a picture's tokens to a short causal sequence of embeddings."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from multimodal_zoo.encoders.image_tokens import ImageTokens
from multimodal_zoo.nn.masks import Bias, Causal, resolve
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.nn.transformer import reset
from multimodal_zoo.registry import ENCODERS


@ENCODERS.register_module(name="causal_former")
class CausalFormer(nn.Module):
    """Learned queries that see the queries before them and all tokens of the picture.

    A decoder of T5's kind (arXiv 1910.10683): attention without scale, a relative bias that all blocks share, a norm
    and a projection behind the last block. Without scale, logits grow with the width: in float16 T5's activations are
    known to overflow, bfloat16 has the range.

    Args:
        width: width of the decoder's tokens, which a language model reads as they are.
        queries: number of embeddings of a picture.
        block: prototype of the blocks (`cross_block`).
        depth: number of blocks.
        positions: the bias of distances between queries (`relative_bias`).
        norm: norm behind the last block.
        context_norm: norm of the picture's tokens (Emu's `ln_visual`), or None.
        dropout: probability of zeroing an element of the queries, and of what the last norm gives, while training.
        std: deviation of the first queries.

    Attributes:
        context_width: width of the picture's tokens.

    Raises:
        ValueError: parts of different widths, no queries or no blocks.
    """

    def __init__(
        self,
        width: int,
        queries: int,
        block: nn.Module,
        depth: int,
        positions: nn.Module,
        norm: nn.Module,
        context_norm: nn.Module | None = None,
        dropout: float = 0.0,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        if queries < 1 or depth < 1:
            raise ValueError(f"connector.queries is {queries}, connector.depth is {depth}; each must be 1 or more")
        if norm.width != block.width:
            raise ValueError(f"connector.norm has width {norm.width}, connector.block has width {block.width}")
        self.context_width = int(block.cross_attention.context_width)
        if context_norm is not None and context_norm.width != self.context_width:
            raise ValueError(
                f"connector.context_norm has width {context_norm.width}, connector.block.cross_attention.context_width "
                f"is {self.context_width}"
            )
        self.width, self.queries, self.std = width, queries, std
        self.context_norm = Identity() if context_norm is None else context_norm
        self.tokens = nn.Parameter(torch.empty(queries, int(block.width)))
        self.positions = positions
        self.blocks = nn.ModuleList(deepcopy(block) for _ in range(depth))
        self.norm, self.dropout = norm, nn.Dropout(dropout)
        self.projection = nn.Linear(int(block.width), width)
        reset(self.blocks)  # copies of one prototype begin apart
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the queries from a normal distribution; the parts have their own rules."""
        nn.init.normal_(self.tokens, std=self.std)

    def check_count(self, count: int) -> None:
        """Refuse another number of embeddings than there are queries.

        Raises:
            ValueError: with the key to change.
        """
        if count != self.queries:
            raise ValueError(
                f"{count} embeddings asked of a picture; connector.queries is {self.queries}: set the processor's "
                "image_tokens and frame_tokens to it"
            )

    def forward(self, seen: ImageTokens, count: int) -> Tensor:
        """Embeddings of pictures, `(images, queries, width)`.

        Args:
            seen: of an image encoder.
            count: embeddings of each picture; the number of queries.
        """
        self.check_count(count)
        context = self.context_norm(seen.tokens)
        states = self.dropout(self.tokens.to(context.dtype).expand(len(context), -1, -1))
        mask = resolve(Causal() & Bias(self.positions(count)), count, count, context.device)
        for block in self.blocks:
            states = block(states, context, mask=mask)
        return self.projection(self.dropout(self.norm(states)))
