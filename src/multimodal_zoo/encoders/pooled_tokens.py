"""Emu2's connector (arXiv 2312.13286): a picture's patches, averaged over squares."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.image_tokens import ImageTokens
from multimodal_zoo.registry import ENCODERS


@ENCODERS.register_module(name="pooled_tokens")
class PooledTokens(nn.Module):
    """Means of squares of patches, row by row; tokens in front of the patches are left out. It has no weights.

    Args:
        width: width of the image encoder's tokens.

    Attributes:
        context_width: the same.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = self.context_width = width

    def forward(self, seen: ImageTokens, count: int) -> Tensor:
        """Embeddings of pictures, `(images, count, width)`.

        Args:
            seen: of an image encoder with a square grid.
            count: embeddings of each picture, a square that divides the grid.

        Raises:
            ValueError: a grid that squares of one size do not cover in so many.
        """
        side = check_pooling(seen.grid, count)
        return F.avg_pool2d(seen.patches, seen.grid[0] // side).flatten(2).transpose(1, 2)


def check_pooling(grid: tuple[int, int], count: int) -> int:
    """The side of the pooled grid.

    Args:
        grid: rows and columns of patches.
        count: embeddings of a picture.

    Raises:
        ValueError: a grid that squares of one size do not cover in so many.
    """
    side = math.isqrt(max(count, 0))
    if side < 1 or side * side != count or grid[0] != grid[1] or grid[0] % side:
        sizes = [n * n for n in range(1, grid[0] + 1) if grid[0] % n == 0] if grid[0] == grid[1] else []
        known = f"it gives {', '.join(map(str, sizes))}" if sizes else "the grid is not square"
        raise ValueError(
            f"{count} embeddings asked of a picture of {grid[0]}x{grid[1]} patches; {known}: set "
            "model.processor.image_tokens and frame_tokens to one of these"
        )
    return side
