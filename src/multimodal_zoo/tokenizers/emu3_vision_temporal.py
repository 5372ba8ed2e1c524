"""Blocks of Emu3's visual tokenizer that look along time, on few channels: `(batch, channels, time, height, width)`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.tokenizers.emu3_vision_blocks import swish

#: Frames of zeros before a clip, whatever the kernel: no step sees a later one.
PAST = 2


class CausalConvolution(nn.Module):
    """Convolution over time, height and width that sees no later step.

    Two frames of zeros stand before the clip; a side of kernel k gets k - 1 zeros, one more before than behind if odd.

    Args:
        channels: of the input.
        width: of the output.
        kernel: along time, height and width.
        time_stride: steps of the input per step of the output.
    """

    def __init__(self, channels: int, width: int, kernel: tuple[int, int, int], time_stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, width, kernel, stride=(time_stride, 1, 1))
        sides = [side for size in (kernel[2], kernel[1]) for side in (size // 2, (size - 1) // 2)]
        self.padding = (*sides, PAST, 0)

    def forward(self, clip: Tensor) -> Tensor:
        """`(batch, channels, time, height, width)` to `width` channels and the stride's fraction of the time."""
        return self.conv(F.pad(clip, self.padding))


class TemporalBlock(nn.Module):
    """Two causal 3x3x3 convolutions beside the identity, normalised by batch norm.

    Args:
        width: channels of input and output.
        dropout: probability of dropping a value before the second convolution.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_1 = nn.BatchNorm3d(width)
        self.conv_1 = CausalConvolution(width, width, (3, 3, 3))
        self.norm_2 = nn.BatchNorm3d(width)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = CausalConvolution(width, width, (3, 3, 3))

    def forward(self, clip: Tensor) -> Tensor:
        """A clip `(batch, width, time, height, width)` of the same shape."""
        inner = self.conv_1(swish(self.norm_1(clip)))
        return clip + self.conv_2(self.dropout(swish(self.norm_2(inner))))


class TemporalDown(nn.Module):
    """Halves the time as often as the factor says, then residual blocks.

    Args:
        width: channels.
        factor: steps of the input per step of the output, a power of two.
        depth: number of residual blocks.
        dropout: of the residual blocks.
    """

    def __init__(self, width: int, factor: int, depth: int, dropout: float) -> None:
        super().__init__()
        halvings = halvings_of(factor)
        self.convs = nn.ModuleList(CausalConvolution(width, width, (4, 3, 3), time_stride=2) for _ in range(halvings))
        self.blocks = nn.ModuleList(TemporalBlock(width, dropout) for _ in range(depth))

    def forward(self, clip: Tensor) -> Tensor:
        """`(batch, width, factor * time, height, width)` to `(batch, width, time, height, width)`."""
        for conv in self.convs:
            clip = swish(conv(clip))
        for block in self.blocks:
            clip = block(clip)
        return clip


class TemporalUp(nn.Module):
    """Residual blocks, then time doubled as often as the factor says.

    Args:
        width: channels.
        factor: steps of the output per step of the input, a power of two.
        depth: number of residual blocks.
        dropout: of the residual blocks.
    """

    def __init__(self, width: int, factor: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TemporalBlock(width, dropout) for _ in range(depth))
        self.convs = nn.ModuleList(CausalConvolution(width, width, (3, 3, 3)) for _ in range(halvings_of(factor)))

    def forward(self, clip: Tensor) -> Tensor:
        """`(batch, width, time, height, width)` to `(batch, width, factor * time, height, width)`."""
        for block in self.blocks:
            clip = block(clip)
        for conv in self.convs:
            clip = swish(conv(clip.repeat_interleave(2, dim=2)))
        return clip


def halvings_of(factor: int) -> int:
    """How often time is halved.

    Raises:
        ValueError: a factor that is no power of two.
    """
    if factor < 1 or factor & (factor - 1):
        raise ValueError(f"temporal_factor is {factor}; expected a power of two: 1, 2, 4, ...")
    return factor.bit_length() - 1
