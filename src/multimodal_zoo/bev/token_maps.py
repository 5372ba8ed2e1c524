"""An image encoder of tokens as an encoder of feature maps (the simple pyramid of ViTDet, arXiv 2203.16527)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.image_tokens import token_width
from multimodal_zoo.registry import BEV


@BEV.register_module(name="token_maps")
class TokenMaps(nn.Module):
    """Four maps, with a quarter, half, one and two patches to a cell, by (transposed) convolutions.

    Cells are whole pixels wide, as lifting counts them: for patches of 14 the finest map is resized to cells of 4.

    Args:
        encoder: gives tokens on a grid (`vision_transformer`, a timm or transformers backbone, ...).
        width: features of its tokens.
        patch: side of its patches in pixels, 14 or 16 say.
        channels: of each map, the finest first.

    Raises:
        ValueError: another width than the encoder's tokens have, or another number of maps.
    """

    def __init__(self, encoder: nn.Module, width: int, patch: int, channels: Sequence[int]) -> None:
        super().__init__()
        if (tokens := token_width(encoder)) != width:
            raise ValueError(
                f"image_encoder.width is {width}, image_encoder.encoder gives tokens of width {tokens}; they must be "
                "equal"
            )
        if len(channels) != 4:
            raise ValueError(f"image_encoder.channels is {list(channels)}; expected four numbers")
        self.encoder: Any = encoder
        self.patch = patch
        self.channels, self.strides = tuple(channels), (math.ceil(patch / 4), math.ceil(patch / 2), patch, 2 * patch)
        four, two, one, half = self.channels
        self.by_four = nn.Sequential(
            nn.ConvTranspose2d(width, four, 2, 2), nn.GELU(), nn.ConvTranspose2d(four, four, 2, 2)
        )
        self.by_two = nn.ConvTranspose2d(width, two, 2, 2)
        self.by_one = nn.Conv2d(width, one, 1)
        self.by_half = nn.Conv2d(width, half, 2, 2)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(n, 3, height, width)` to four maps `(n, channels, h, w)`, the finest first.

        Raises:
            ValueError: an encoder whose tokens are not those of the grid (patch dropout).
        """
        features = self.encoder(images)
        rows, columns = features.grid
        if features.tokens.shape[1] != rows * columns:
            raise ValueError(f"image_encoder: {features.tokens.shape[1]} tokens for a grid of {rows} x {columns}")
        tokens = features.tokens.transpose(1, 2).unflatten(2, (rows, columns))
        even = F.pad(tokens, (0, columns % 2, 0, rows % 2))
        fine, half = (
            self._whole(maps, level, images) for level, maps in enumerate((self.by_four(tokens), self.by_two(tokens)))
        )
        return [fine, half, self.by_one(tokens), self.by_half(even)]

    def _whole(self, maps: Tensor, level: int, images: Tensor) -> Tensor:
        """A map whose cells are `strides[level]` pixels."""
        if self.patch % (4, 2)[level] == 0:
            return maps
        size = [math.ceil(side / self.strides[level]) for side in images.shape[-2:]]
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
