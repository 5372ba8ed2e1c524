"""A small convolutional encoder of feature maps, for CPUs and tests."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from multimodal_zoo.bev.layers import ConvNorm, ResidualBlock
from multimodal_zoo.registry import BEV


@BEV.register_module(name="convolution_maps")
class ConvolutionMaps(nn.Module):
    """Four stages of a strided convolution and a residual block, at strides 4, 8, 16 and 32.

    Args:
        channels: of each stage.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        if len(channels) != 4:
            raise ValueError(f"image_encoder.channels is {tuple(channels)}; expected four numbers")
        self.channels, self.strides = tuple(channels), (4, 8, 16, 32)
        first = channels[0]
        self.stem = ConvNorm(3, first, 3, 2, active=True)
        inputs = (first, *channels[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNorm(a, b, 3, 2, active=True), ResidualBlock(b))
            for a, b in zip(inputs, channels, strict=True)
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(n, 3, height, width)` to four maps `(n, channels, h, w)`, the finest first."""
        maps, found = self.stem(images), []
        for stage in self.stages:
            maps = stage(maps)
            found.append(maps)
        return found
