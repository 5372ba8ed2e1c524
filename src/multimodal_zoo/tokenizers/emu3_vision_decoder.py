"""The decoder of Emu3's visual tokenizer: latents and codebook vectors along time, then frame by frame to pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.emu3_vision_blocks import Level, Middle, SpatialNorm, Upsample, swish
from multimodal_zoo.tokenizers.emu3_vision_encoder import check_levels
from multimodal_zoo.tokenizers.emu3_vision_temporal import TemporalUp


@TOKENIZERS.register_module(name="emu3_vision_decoder")
class Emu3VisionDecoder(nn.Module):
    """Latents to pixels (arXiv 2409.18869, section 2.2; the decoder of MoVQ with temporal layers before it).

    The codebook vectors go through the temporal layers as the latents do, and then modulate every norm.

    Args:
        width: channels of the last convolution's input is this times the first multiplier; 256 as published.
        multipliers: factor on the width at each resolution, finest first, as in the encoder.
        depth: temporal blocks, and one less than the residual blocks per resolution.
        attention_levels: resolutions whose residual blocks are each followed by attention, 0 is the finest.
        latent_width: channels of the latents and of the codebook vectors.
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
        check_levels("decoder", multipliers, depth, attention_levels)
        widths = [width * factor for factor in multipliers]
        before = [*widths[1:], widths[-1]]
        self.channels, self.latent_width = channels, latent_width
        self.spatial_factor, self.temporal_factor = 2 ** (len(widths) - 1), temporal_factor
        self.temporal = TemporalUp(latent_width, temporal_factor, depth, dropout)
        self.conv_in = nn.Conv2d(latent_width, widths[-1], 3, padding=1)

        def norm(channels: int) -> SpatialNorm:
            """The norm of every block."""
            return SpatialNorm(channels, latent_width)

        self.middle = Middle(widths[-1], norm, dropout, kernel)
        self.levels = nn.ModuleList(
            Level(
                before[i],
                widths[i],
                depth + 1,
                i in attention_levels,
                Upsample(widths[i]) if i else None,
                norm,
                dropout,
                kernel,
            )
            for i in range(len(widths))
        )
        self.norm_out = norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], channels, 3, padding=1)

    def frames(self, latents: Tensor, vectors: Tensor) -> Tensor:
        """Latents and codebook vectors of frames `(frames, latent_width, h, w)` to pixels, frame by frame."""
        features = self.middle(self.conv_in(latents), vectors)
        for level in reversed(self.levels):
            features = level(features, vectors)
        return self.conv_out(swish(self.norm_out(features, vectors)))

    def forward(self, latents: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Both along time, `(batch, latent_width, time, h, w)` to `(batch, latent_width, frames, h, w)`.

        They share a batch, so that batch norm sees both together while it trains, as its published statistics do.
        """
        latents, vectors = self.temporal(torch.cat((latents, vectors))).chunk(2)
        return latents, vectors
