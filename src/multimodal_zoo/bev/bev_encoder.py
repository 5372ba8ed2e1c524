"""The convolutional encoder of the map in bird's-eye view (M2BEV's, as Fast-BEV uses it, arXiv 2301.12511)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.bev.layers import ConvNorm, ResidualBlock
from multimodal_zoo.registry import BEV


@BEV.register_module(name="bev_encoder")
class BevEncoder(nn.Module):
    """Features of all heights and frames mixed by a 1x1 convolution, then residual blocks; the map is halved once.

    Args:
        in_channels: channels of the lifted map.
        fused: channels behind the 1x1 convolution; none: there is none.
        width: channels of the result.
        depth: residual blocks at the result's size.
        stride: the result is so many times smaller.
    """

    def __init__(self, in_channels: int, fused: int | None, width: int, depth: int, stride: int = 2) -> None:
        super().__init__()
        self.in_channels, self.width = in_channels, width
        self.fuse = None if fused is None else nn.Conv2d(in_channels, fused, 1)
        inner = in_channels if fused is None else fused
        layers: list[nn.Module] = [ResidualBlock(inner), ConvNorm(inner, width, 3, stride, active=True)]
        for _ in range(depth):
            layers += [ResidualBlock(width), ConvNorm(width, width, 3, active=True)]
        self.layers = nn.Sequential(*layers)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming normal kernels (fan out); the 1x1 convolution by torch's own rule."""
        if self.fuse is not None:
            self.fuse.reset_parameters()
        for part in self.layers.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Tensor) -> Tensor:
        """`(batch, in_channels, x, y)` to `(batch, width, x / stride, y / stride)`, rounded up.

        Raises:
            ValueError: a map of another width.
        """
        if maps.shape[1] != self.in_channels:
            raise ValueError(
                f"bev_encoder.in_channels is {self.in_channels}; the lifted map has {maps.shape[1]} channels "
                "(heights x maps x frames x features)"
            )
        return self.layers(self._fused(maps))

    def _fused(self, maps: Tensor) -> Tensor:
        if self.fuse is None:
            return maps
        # lifted maps lie channels last: a product of matrices, for which torch's convolution would copy them
        rows = F.linear(maps.permute(0, 2, 3, 1), self.fuse.weight.flatten(1), self.fuse.bias)
        return rows.permute(0, 3, 1, 2)
