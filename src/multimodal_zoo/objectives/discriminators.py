"""Networks that tell made pictures and clips from given ones, place by place."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.registry import OBJECTIVES

#: Groups of the norms; they do not mix the pictures of a batch, so that processes agree without batch norm.
GROUPS = 32
SLOPE = 0.2


def _widths(width: int, depth: int) -> list[int]:
    if width % GROUPS or depth < 1:
        raise ValueError(
            f"discriminator: width is {width} and depth {depth}; expected a multiple of {GROUPS}, and at least 1"
        )
    return [width * min(2**number, 8) for number in range(depth + 1)]


@OBJECTIVES.register_module(name="patch_discriminator")
class PatchDiscriminator(nn.Module):
    """One score per patch of a picture (PatchGAN, arXiv 1611.07004), with group norm in place of batch norm.

    Args:
        width: channels of the first layer, a multiple of 32.
        depth: layers that halve the sides.
        channels: of the pixels.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(self, width: int = 64, depth: int = 3, channels: int = 3) -> None:
        super().__init__()
        widths = _widths(width, depth)
        self.first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2 if number < depth - 1 else 1, padding=1, bias=False)
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, after) for after in widths[1:])
        self.last = nn.Conv2d(widths[-1], 1, 4, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores `(frames, 1, h, w)`, high for given pictures; frames of clips count as pictures.

        Args:
            pixels: `(batch, channels, height, width)` or `(batch, frames, channels, height, width)`.
        """
        features = F.leaky_relu(self.first(pixels.flatten(0, -4)), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = F.leaky_relu(norm(conv(features)), SLOPE)
        return self.last(features)


@OBJECTIVES.register_module(name="clip_discriminator")
class ClipDiscriminator(nn.Module):
    """One score per patch of a few frames: PatchGAN with kernels over time too.

    Args:
        width: channels of the first layer, a multiple of 32.
        depth: layers that halve the sides; the first two halve the time as well.
        channels: of the pixels.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(self, width: int = 64, depth: int = 3, channels: int = 3) -> None:
        super().__init__()
        widths = _widths(width, depth)
        self.first = nn.Conv3d(channels, width, (3, 4, 4), stride=2, padding=1)
        self.convs = nn.ModuleList(
            nn.Conv3d(
                before,
                after,
                (3, 4, 4),
                stride=(2 if number == 0 else 1, *((2, 2) if number < depth - 1 else (1, 1))),
                padding=1,
                bias=False,
            )
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, after) for after in widths[1:])
        self.last = nn.Conv3d(widths[-1], 1, (3, 4, 4), padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores `(batch, 1, time, h, w)`, high for given clips.

        Args:
            pixels: `(batch, frames, channels, height, width)`.

        Raises:
            ValueError: pictures in place of clips.
        """
        if pixels.ndim != 5:
            raise ValueError(f"clip_discriminator takes clips, not {tuple(pixels.shape)}: use patch_discriminator")
        features = F.leaky_relu(self.first(pixels.transpose(1, 2)), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            features = F.leaky_relu(norm(conv(features)), SLOPE)
        return self.last(features)


@OBJECTIVES.register_module(name="mixed_discriminator")
class MixedDiscriminator(nn.Module):
    """One discriminator for batches of pictures and one for batches of clips.

    Args:
        pictures: scores pictures (`patch_discriminator`).
        clips: scores clips (`clip_discriminator`).
    """

    def __init__(self, pictures: nn.Module, clips: nn.Module) -> None:
        super().__init__()
        self.pictures, self.clips = pictures, clips

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores of the one that fits the batch."""
        return (self.clips if pixels.ndim == 5 else self.pictures)(pixels)
