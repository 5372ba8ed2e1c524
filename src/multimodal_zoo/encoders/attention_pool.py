"""From a feature map to one vector per image: attention with one query (CLIP's ResNets), mean, and a switch.

Each part takes maps `(batch, width, height, width of the map)` and gives `(batch, embed_dim)`; attributes `width`
(channels of the map) and `embed_dim` (of the result).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.kernels import check_kernel_name
from multimodal_zoo.nn.norms import Identity
from multimodal_zoo.nn.projections import SeparateProjection
from multimodal_zoo.registry import ENCODERS


def _check_output(name: str, width: int, output: nn.Module | None) -> int:
    """Width of what a pool gives.

    Raises:
        ValueError: an output layer for another width.
    """
    if output is None:
        return width
    if output.width != width:
        raise ValueError(f"{name}.output takes width {output.width}, the pool has width {width}; set {name}.output")
    return int(output.embed_dim)


@ENCODERS.register_module(name="attention_pool_2d")
class AttentionPool2d(nn.Module):
    """Attention whose one query is the mean of the map (CLIP, arXiv 2103.00020, section 2.4).

    The mean stands before the cells as a token of its own, all get positions, and only that token asks: queries of the
    other tokens would be computed for nothing.

    Args:
        width: channels of the map.
        heads: number of heads.
        grid: rows and columns of the map that the positions are for.
        output: layer behind the heads (`linear_projection`), or None for the concatenated heads themselves.
        kernel: a name of `nn.kernels.KERNELS`.

    Raises:
        ValueError: a width that the heads do not divide.
    """

    def __init__(
        self, width: int, heads: int, grid: int, output: nn.Module | None = None, kernel: str = "sdpa"
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"image.pool.heads is {heads}; expected a divisor of the width {width}")
        self.embed_dim = _check_output("attention_pool_2d", width, output)
        self.width, self.grid, self.kernel = width, grid, check_kernel_name(kernel)
        self.positions = nn.Parameter(torch.empty(grid * grid + 1, width))
        self.qkv = SeparateProjection(width, heads, width // heads, heads, ("query", "key", "value"))
        self.output = Identity() if output is None else output
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with a deviation of `width ** -0.5` for positions and the three matrices, zero biases."""
        for weight in (self.positions, self.qkv.query.weight, self.qkv.key.weight, self.qkv.value.weight):
            nn.init.normal_(weight, std=self.width**-0.5)

    def forward(self, maps: Tensor) -> Tensor:
        """From maps `(batch, width, grid, grid)` to `(batch, embed_dim)`.

        Raises:
            ValueError: a map of another size.
        """
        if tuple(maps.shape[1:]) != (self.width, self.grid, self.grid):
            raise ValueError(
                f"attention pooling got a map of shape {tuple(maps.shape)}; it has positions for (batch, {self.width}, "
                f"{self.grid}, {self.grid}): change the size of the images or image.pool.grid"
            )
        cells = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat((cells.mean(1, keepdim=True), cells), dim=1) + self.positions
        first = torch.zeros(tokens.shape[0], 1, dtype=torch.long, device=tokens.device)
        query, key, value = self.qkv(tokens, first)
        return self.output(attend(query, key, value, kernel=self.kernel).transpose(1, 2).flatten(1))


@ENCODERS.register_module(name="mean_pool_2d")
class MeanPool2d(nn.Module):
    """The mean over the map.

    Args:
        width: channels of the map.
        output: layer behind the mean (`linear_projection`), or None.
    """

    def __init__(self, width: int, output: nn.Module | None = None) -> None:
        super().__init__()
        self.width, self.embed_dim = width, _check_output("mean_pool_2d", width, output)
        self.output = Identity() if output is None else output

    def forward(self, maps: Tensor) -> Tensor:
        """From maps `(batch, width, h, w)` to `(batch, embed_dim)`.

        Raises:
            ValueError: a map of another width.
        """
        if maps.dim() != 4 or maps.shape[1] != self.width:
            raise ValueError(
                f"mean pooling got a map of shape {tuple(maps.shape)}; expected (batch, {self.width}, height, width): "
                "the published layer behind it takes 2048 channels, whatever the tower's; change image.pool"
            )
        return self.output(maps.mean((2, 3)))


@ENCODERS.register_module(name="grid_switch_pool")
class GridSwitchPool(nn.Module):
    """One pool for maps that are exactly `grid` wide, another for all others: DeCLIP's published ResNets.

    They hold attention pooling, which is trained at 224 pixels, and a linear layer behind the mean, which training
    never reached: at other sizes the published weights give noise. Only a map's width is looked at, as published.

    Args:
        width: channels of the map that `attention` takes.
        grid: columns of the map for which `attention` serves.
        attention: the pool for those maps.
        mean: the pool for other maps; it may be for another width, which then serves no map of this tower.

    Raises:
        ValueError: pools whose results have different widths.
    """

    def __init__(self, width: int, grid: int, attention: nn.Module, mean: nn.Module) -> None:
        super().__init__()
        if attention.width != width or attention.embed_dim != mean.embed_dim:
            raise ValueError(
                f"grid_switch_pool: width {width}, attention from {attention.width} to {attention.embed_dim}, mean to "
                f"{mean.embed_dim}; expected the same widths in and out (image.pool)"
            )
        self.width, self.grid, self.embed_dim = width, grid, int(attention.embed_dim)
        self.attention, self.mean = attention, mean

    def forward(self, maps: Tensor) -> Tensor:
        """From maps `(batch, width, h, w)` to `(batch, embed_dim)`."""
        return self.attention(maps) if maps.shape[-1] == self.grid else self.mean(maps)
