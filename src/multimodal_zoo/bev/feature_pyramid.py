"""Feature pyramid and the fusion of its levels into the maps that are lifted (arXiv 1612.03144, 2301.12511)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.bev.layers import ConvNorm
from multimodal_zoo.registry import BEV


@BEV.register_module(name="feature_pyramid")
class FeaturePyramid(nn.Module):
    """Maps of a backbone to maps of one width, each with what the coarser ones know.

    Args:
        in_channels: channels of each map, from the finest on.
        channels: channels of every result.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.in_channels, self.channels = tuple(in_channels), (channels,) * len(in_channels)
        self.laterals = nn.ModuleList(ConvNorm(inputs, channels, 1) for inputs in in_channels)
        self.outputs = nn.ModuleList(ConvNorm(channels, channels, 3) for _ in in_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform kernels."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.xavier_uniform_(part.weight)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """As many maps `(batch, channels, h, w)` of the same sizes.

        Raises:
            ValueError: another number of maps, or maps of other widths.
        """
        found = tuple(one.shape[1] for one in maps)
        if found != self.in_channels:
            raise ValueError(f"pyramid.in_channels is {self.in_channels}; the image encoder gives {found}")
        merged = [lateral(one) for lateral, one in zip(self.laterals, maps, strict=True)]
        for level in range(len(merged) - 2, -1, -1):  # by size: maps of odd sides are not exactly halved
            size = merged[level].shape[-2:]
            merged[level] = merged[level] + F.interpolate(merged[level + 1], size=size, mode="nearest")
        return [output(one) for output, one in zip(self.outputs, merged, strict=True)]


@BEV.register_module(name="level_fusion")
class LevelFusion(nn.Module):
    """A level of the pyramid and all coarser ones as one map.

    Args:
        level: number of the finest map that goes in.
        in_channels: channels of all of them together.
        channels: channels of the result.
    """

    def __init__(self, level: int, in_channels: int, channels: int) -> None:
        super().__init__()
        self.level, self.in_channels, self.out_channels = level, in_channels, channels
        self.convolution = nn.Conv2d(in_channels, channels, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`(batch, channels, h, w)`, of the size of that level.

        Raises:
            ValueError: maps whose channels do not add up to `in_channels`.
        """
        chosen = list(maps[self.level :])
        total = sum(one.shape[1] for one in chosen)
        if total != self.in_channels:
            raise ValueError(
                f"fusions.in_channels is {self.in_channels}; levels from {self.level} on have {total} channels"
            )
        size = chosen[0].shape[-2:]
        resized = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in chosen[1:]]
        return self.convolution(torch.cat([chosen[0], *resized], dim=1))
