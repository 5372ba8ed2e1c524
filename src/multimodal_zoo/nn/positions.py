"""Learned tokens and learned absolute positions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.registry import ENCODERS


def resize_positions(table: Tensor, prefix: int, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Interpolate positions of a grid for another grid: bicubic, no antialiasing, as EVA-CLIP and DeCLIP do.

    Args:
        table: `(prefix + rows * columns, width)`.
        prefix: positions of tokens before the patches, left as they are.
        old: grid of the table.
        new: grid wanted.

    Returns:
        `(prefix + new rows * new columns, width)`, in the table's dtype.
    """
    if old == new:
        return table
    patches = table[prefix:].unflatten(0, old).permute(2, 0, 1)[None]
    exact = patches.to(torch.promote_types(table.dtype, torch.float32))
    resized = F.interpolate(exact, size=new, mode="bicubic", align_corners=False)
    return torch.cat((table[:prefix], resized[0].flatten(1).T.to(table.dtype)))


@ENCODERS.register_module(name="class_token")
class ClassToken(nn.Module):
    """A learned token (or several) put before the patches.

    Args:
        width: width of the tokens.
        std: deviation of the first values.
        count: number of tokens.
    """

    def __init__(self, width: int, std: float, count: int = 1) -> None:
        super().__init__()
        self.width, self.std, self.count = width, std, count
        self.weight = nn.Parameter(torch.empty(count, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution."""
        nn.init.normal_(self.weight, std=self.std)

    def forward(self, tokens: Tensor) -> Tensor:
        """Put the learned tokens before `(batch, tokens, width)`."""
        return torch.cat((self.weight.to(tokens.dtype).expand(tokens.shape[0], -1, -1), tokens), dim=1)


@ENCODERS.register_module(name="learned_positions")
class LearnedPositions(nn.Module):
    """One learned vector per place of a fixed grid.

    Args:
        width: width of the tokens.
        image_size: side of the images, in pixels.
        patch_size: side of a patch, in pixels.
        prefix: tokens before the patches, which have positions too.
        std: deviation of the first values.
    """

    def __init__(self, width: int, image_size: int, patch_size: int, prefix: int, std: float) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of patch_size {patch_size}")
        self.width, self.side, self.patch_size = width, image_size // patch_size, patch_size
        self.prefix, self.std = prefix, std
        self.weight = nn.Parameter(torch.empty(prefix + self.side**2, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution."""
        nn.init.normal_(self.weight, std=self.std)

    def table(self, grid: tuple[int, int]) -> Tensor:
        """Positions for a grid, `(prefix + rows * columns, width)`.

        Raises:
            ValueError: another grid than the one the positions were made for.
        """
        if grid != (self.side, self.side):
            height, width = (n * self.patch_size for n in grid)
            size = self.side * self.patch_size
            raise ValueError(
                f"images of {height}x{width} pixels; the positions are for {size}x{size}. Resize the images, build the "
                "model with another image_size, or set positions.type=resizable_positions"
            )
        return self.weight

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Add positions to `(batch, prefix + rows * columns, width)`."""
        return tokens + self.table(grid).to(tokens.dtype)


@ENCODERS.register_module(name="resizable_positions")
class ResizablePositions(LearnedPositions):
    """Learned positions that are interpolated when images of another size come in, square or not."""

    def table(self, grid: tuple[int, int]) -> Tensor:
        """Positions for any grid, `(prefix + rows * columns, width)`."""
        return resize_positions(self.weight, self.prefix, (self.side, self.side), grid)
