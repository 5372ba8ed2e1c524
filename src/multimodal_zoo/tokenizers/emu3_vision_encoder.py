"""The encoder of Emu3's visual tokenizer: frames to a coarse grid of few channels, then several frames to one step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.emu3_vision_blocks import Downsample, GroupNorm, Level, Middle, swish
from multimodal_zoo.tokenizers.emu3_vision_temporal import TemporalDown


def check_levels(part: str, multipliers: Sequence[int], depth: int, attention_levels: Sequence[int]) -> None:
    """Refuse levels that cannot be.

    Raises:
        ValueError: no level, levels without blocks, or attention at a level that is not there.
    """
    if depth < 1:
        raise ValueError(f"{part}.depth is {depth}; expected at least 1 residual block per resolution")
    if not multipliers:
        raise ValueError(f"{part}.multipliers is empty; expected one factor on the width per resolution")
    if strange := [level for level in attention_levels if not 0 <= level < len(multipliers)]:
        raise ValueError(
            f"{part}.attention_levels has {strange}; levels are numbered 0 (the finest) to {len(multipliers) - 1}"
        )


@TOKENIZERS.register_module(name="emu3_vision_encoder")
class Emu3VisionEncoder(nn.Module):
    """Pixels to latents (arXiv 2409.18869, section 2.2; the encoder of MoVQ with temporal layers behind it).

    Args:
        width: channels of the first convolution, 256 as published.
        multipliers: factor on the width at each resolution, finest first; each but the last halves the sides.
        depth: residual blocks per resolution, and temporal ones behind.
        attention_levels: resolutions whose residual blocks are each followed by attention, 0 is the finest.
        latent_width: channels of the latents.
        temporal_factor: frames per step of the latents, a power of two.
        dropout: of the residual blocks, while training.
        channels: of the pixels.
        kernel: of the attention, a name of `nn.kernels.KERNELS`.

    Raises:
        ValueError: sizes that do not fit.
    """

    def __init__(
        self,
        width: int,
        multipliers: Sequence[int],
        depth: int,
        attention_levels: Sequence[int],
        latent_width: int,
        temporal_factor: int,
        dropout: float = 0.0,
        channels: int = 3,
        kernel: str = "sdpa",
    ) -> None:
        super().__init__()
        check_levels("encoder", multipliers, depth, attention_levels)
        widths, last = [width * factor for factor in multipliers], len(multipliers) - 1
        self.channels, self.latent_width = channels, latent_width
        self.spatial_factor, self.temporal_factor = 2**last, temporal_factor
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                ([width, *widths])[i],
                widths[i],
                depth,
                i in attention_levels,
                Downsample(widths[i]) if i < last else None,
                GroupNorm,
                dropout,
                kernel,
            )
            for i in range(len(widths))
        )
        self.middle = Middle(widths[-1], GroupNorm, dropout, kernel)
        self.norm_out = GroupNorm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], latent_width, 3, padding=1)
        self.temporal = TemporalDown(latent_width, temporal_factor, depth, dropout)

    def frames(self, pixels: Tensor) -> Tensor:
        """Frames `(frames, channels, height, width)` one by one to `(frames, latent_width, h, w)`."""
        features = self.conv_in(pixels)
        for level in self.levels:
            features = level(features)
        return self.conv_out(swish(self.norm_out(self.middle(features))))

    def forward(self, clip: Tensor) -> Tensor:
        """What `frames` gives, a clip `(batch, latent_width, frames, h, w)`, to `(batch, latent_width, time, h, w)`."""
        return self.temporal(clip)
