"""The vision transformer: every published tower of CLIP, DeCLIP and EVA-CLIP is one choice of its parts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.nn.rotary import Rotation
from multimodal_zoo.registry import ENCODERS


@ENCODERS.register_module(name="vision_transformer")
class VisionTransformer(nn.Module):
    """Patches, class token, positions, blocks, pooling (ViT, arXiv 2010.11929).

    Args:
        width: width of the tokens.
        image_size: side of the images that the tower is meant for, in pixels; an image transform reads it here.
        patches: from pixels to patch tokens (`patch_embedding`, `conv_stem`).
        blocks: the stack (`transformer`).
        pool: from tokens to one vector (`class_token_pool`, `mean_pool`).
        prefix: tokens put before the patches (`class_token`), or None.
        positions: absolute positions (`learned_positions`, `resizable_positions`), or None.
        rotary: rotary positions of the patches (`rotary_2d`), or None.
        patch_dropout: `patch_dropout`, or None.
        norm_in: norm before the first block (CLIP's `ln_pre`), or None.
    """

    def __init__(
        self,
        width: int,
        image_size: int,
        patches: nn.Module,
        blocks: nn.Module,
        pool: nn.Module,
        prefix: nn.Module | None = None,
        positions: nn.Module | None = None,
        rotary: nn.Module | None = None,
        patch_dropout: nn.Module | None = None,
        norm_in: nn.Module | None = None,
    ) -> None:
        super().__init__()
        parts = {"patches": patches, "blocks": blocks, "prefix": prefix, "positions": positions, "norm_in": norm_in}
        for name, part in parts.items():
            if part is not None and part.width != width:
                raise ValueError(f"vision_transformer.{name} has width {part.width}, the tower has width {width}")
        self.width, self.image_size = width, image_size
        self.prefix_length: int = 0 if prefix is None else prefix.count
        if positions is not None and positions.prefix != self.prefix_length:
            raise ValueError(
                f"vision_transformer.positions.prefix is {positions.prefix}, but {self.prefix_length} tokens come "
                "before the patches"
            )
        self.patches = patches
        self.prefix, self.positions, self.rotary, self.patch_dropout = prefix, positions, rotary, patch_dropout
        self.norm_in = norm_in if norm_in is not None else Identity()
        self.blocks, self.pool = blocks, pool

    def embed(self, images: Tensor) -> tuple[Tensor, Rotation | None, tuple[int, int]]:
        """What the first block gets: tokens `(batch, prefix + patches, width)`, rotary tables or None, and the grid."""
        tokens, grid = self.patches(images)
        return *self.arrange(tokens, grid), grid

    def arrange(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Rotation | None]:
        """Patches `(batch, patches, width)` made ready for the first block, with the rotary tables or None.

        They get the tokens before them, positions, patch dropout and the norm in front of the blocks.
        """
        device = tokens.device
        if self.prefix is not None:
            tokens = self.prefix(tokens)
        if self.positions is not None:
            tokens = self.positions(tokens, grid)
        keep = None
        if self.patch_dropout is not None:
            tokens, keep = self.patch_dropout(tokens, self.prefix_length)
        rotation = self.rotary(grid, self.prefix_length, device, keep) if self.rotary is not None else None
        return self.norm_in(tokens), rotation

    def norm_patches(self, tokens: Tensor) -> Tensor:
        """Patch tokens of `forward`, `(batch, patches, width)`, through the final norm, which it spares them."""
        return self.pool.norm(tokens)

    def stream(self, images: Tensor) -> Tensor:
        """The residual stream after the last block, class token first, no final norm: `(batch, tokens, width)`."""
        tokens, rotation, _ = self.embed(images)
        return self.blocks(tokens, rotation=rotation)

    def intermediates(self, images: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The residual stream after chosen blocks (negative numbers count from the end), class token first."""
        tokens, rotation, _ = self.embed(images)
        return self.blocks.intermediates(tokens, layers, rotation=rotation)

    def pooled(self, images: Tensor) -> Tensor:
        """Exactly `forward(images).pooled`, without computing patches in the last block that nothing reads."""
        if self.pool.reads is None:
            return self(images).pooled
        tokens, rotation, _ = self.embed(images)
        places = torch.arange(self.pool.reads, device=tokens.device).expand(tokens.shape[0], -1)
        return self.pool(self.blocks(tokens, rotation=rotation, places=places))

    def forward(self, images: Tensor) -> ImageFeatures:
        """Features of images `(batch, 3, height, width)`."""
        tokens, rotation, grid = self.embed(images)  # images (batch, 3, height, width)
        tokens = self.blocks(tokens, rotation=rotation)
        return ImageFeatures(self.pool(tokens), tokens[:, self.prefix_length :], grid)
