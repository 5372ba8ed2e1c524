"""Blocks of Emu3's visual tokenizer that look at single frames (MoVQ, arXiv 2209.09002; arXiv 2409.18869, 2.2).

Frames are `(frames, channels, height, width)`. The decoder's norms are modulated by codebook vectors; those of the
encoder take the same argument and ignore it, so that one residual block and one attention block serve both.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.kernels import check_kernel_name

GROUPS = 32
EPSILON = 1e-6


def swish(features: Tensor) -> Tensor:
    """`x * sigmoid(x)`, in place where no gradient is wanted: never give it a tensor that is needed later."""
    return F.silu(features, inplace=not torch.is_grad_enabled())


class GroupNorm(nn.GroupNorm):
    """Group norm that ignores the codebook vectors of the decoder's norm.

    Args:
        channels: of the features, a multiple of 32.

    Raises:
        ValueError: channels that 32 groups do not divide.
    """

    def __init__(self, channels: int) -> None:
        if channels % GROUPS:
            raise ValueError(f"a level is {channels} wide; expected a multiple of {GROUPS} (width, multipliers)")
        super().__init__(GROUPS, channels, EPSILON)

    def forward(self, features: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Normalised features, of the same shape; torch's own module refuses a single value per group."""
        return torch.group_norm(features, self.num_groups, self.weight, self.bias, self.eps)


class SpatialNorm(nn.Module):
    """Group norm whose scale and shift come from the codebook vectors of the place (MoVQ, section 3.2).

    Args:
        channels: of the features, a multiple of 32.
        vector_width: of the codebook vectors.
    """

    def __init__(self, channels: int, vector_width: int) -> None:
        super().__init__()
        self.norm = GroupNorm(channels)
        self.scale = nn.Conv2d(vector_width, channels, 1)
        self.shift = nn.Conv2d(vector_width, channels, 1)

    def forward(self, features: Tensor, vectors: Tensor) -> Tensor:
        """`norm(features) * scale(vectors) + shift(vectors)`, the vectors resized by the nearest neighbour.

        A layer that looks at one place commutes with that resizing: it runs on the small grid.

        Args:
            features: `(frames, channels, k * height, k * width)`.
            vectors: `(frames, vector_width, height, width)`.
        """
        height, width = vectors.shape[2:]
        ratio = features.shape[2] // height
        normed = self.norm(features)
        scale, shift = self.scale(vectors), self.shift(vectors)
        if ratio == 1:
            return torch.addcmul(shift, normed, scale)
        blocks = normed.unflatten(3, (width, ratio)).unflatten(2, (height, ratio))
        scale, shift = scale[:, :, :, None, :, None], shift[:, :, :, None, :, None]
        if torch.is_grad_enabled():
            return torch.addcmul(shift, blocks, scale).flatten(4, 5).flatten(2, 3)
        torch.addcmul(shift, blocks, scale, out=blocks)  # a view of `normed`
        return normed


#: Channels -> a norm called with features and codebook vectors.
MakeNorm = Callable[[int], nn.Module]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        channels: of the input.
        width: of the output; a 1x1 convolution is the shortcut where it differs.
        norm: makes the norms.
        dropout: probability of dropping a value before the second convolution.
    """

    def __init__(self, channels: int, width: int, norm: MakeNorm, dropout: float) -> None:
        super().__init__()
        self.norm_1 = norm(channels)
        self.conv_1 = nn.Conv2d(channels, width, 3, padding=1)
        self.norm_2 = norm(width)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.shortcut = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1)

    def forward(self, features: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Features `(frames, channels, height, width)` to `(frames, width, height, width)`."""
        inner = self.conv_1(swish(self.norm_1(features, vectors)))
        inner = self.conv_2(self.dropout(swish(self.norm_2(inner, vectors))))
        return inner.add_(self.shortcut(features))  # nothing keeps what a convolution gave


class AttentionBlock(nn.Module):
    """Attention of one head over all places of a frame, added to its input.

    Args:
        channels: of the features.
        norm: makes the norm.
        kernel: a name of `nn.kernels.KERNELS`.
    """

    def __init__(self, channels: int, norm: MakeNorm, kernel: str) -> None:
        super().__init__()
        self.kernel = check_kernel_name(kernel)
        self.norm = norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, features: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Mix the places of features `(frames, channels, height, width)`."""
        places = self.norm(features, vectors).permute(0, 2, 3, 1)  # (frames, height, width, channels)
        tokens = places.flatten(1, 2).unsqueeze(1)  # one head
        mixed = attend(self.query(tokens), self.key(tokens), self.value(tokens), kernel=self.kernel)
        return features + self.out(mixed).view(places.shape).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Halves both sides: a row and a column of zeros behind, then a 3x3 convolution of stride 2.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(frames, channels, 2 * height, 2 * width)` to half the sides."""
        return self.conv(F.pad(features, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles both sides by the nearest neighbour, then a 3x3 convolution.

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features `(frames, channels, height, width)` to twice the sides."""
        return self.conv(F.interpolate(features, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if the level has it, then a change of resolution.

    Args:
        channels: of the input.
        width: of the output.
        depth: number of residual blocks.
        attends: whether the level has attention.
        resample: `Downsample`, `Upsample`, or None at the last level.
        norm: makes the norms.
        dropout: of the residual blocks.
        kernel: of the attention.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        attends: bool,
        resample: nn.Module | None,
        norm: MakeNorm,
        dropout: float,
        kernel: str,
    ) -> None:
        super().__init__()
        widths = [channels] + [width] * (depth - 1)
        self.blocks = nn.ModuleList(ResidualBlock(before, width, norm, dropout) for before in widths)
        self.attentions = nn.ModuleList(AttentionBlock(width, norm, kernel) for _ in range(depth if attends else 0))
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, features: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Features `(frames, channels, height, width)` at this level's resolution to the next one's."""
        for number, block in enumerate(self.blocks):
            features = block(features, vectors)
            if self.attentions:
                features = self.attentions[number](features, vectors)
        return self.resample(features)


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest resolution.

    Args:
        width: of the features.
        norm: makes the norms.
        dropout: of the residual blocks.
        kernel: of the attention.
    """

    def __init__(self, width: int, norm: MakeNorm, dropout: float, kernel: str) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width, norm, dropout)
        self.attention = AttentionBlock(width, norm, kernel)
        self.block_2 = ResidualBlock(width, width, norm, dropout)

    def forward(self, features: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Features `(frames, width, height, width)`, of the same shape."""
        features = self.block_1(features, vectors)
        return self.block_2(self.attention(features, vectors), vectors)
