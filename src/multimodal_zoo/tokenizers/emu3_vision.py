"""Emu3's visual tokenizer (arXiv 2409.18869, section 2.2): pictures and clips to codes and back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.modes import evaluation_mode
from multimodal_zoo.nn.shown_weights import ShowsWeights
from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.emu3_vision_decoder import Emu3VisionDecoder
from multimodal_zoo.tokenizers.emu3_vision_encoder import Emu3VisionEncoder
from multimodal_zoo.tokenizers.emu3_vision_temporal import CausalConvolution
from multimodal_zoo.tokenizers.quantizers import EmaQuantizer, VectorQuantizer


class Reconstruction(NamedTuple):
    """What training the tokenizer needs.

    Attributes:
        pixels: as the given ones, which they should equal.
        codes: (batch, [time,] h, w), long.
        commitment: scalar, distance of the latents from their entries; draws the latents.
        codebook: scalar, the same distance; draws the entries.
    """

    pixels: Tensor
    codes: Tensor
    commitment: Tensor
    codebook: Tensor


@TOKENIZERS.register_module(name="emu3_vision_tokenizer")
class Emu3VisionTokenizer(ShowsWeights):
    """Codes of pictures and clips, and pixels of codes.

    A picture stands for a clip of `temporal_factor` equal frames, of which decoding keeps the first; what is equal is
    computed once. Pixels are nominally in [-1, 1].

    Args:
        encoder: pixels to latents.
        decoder: latents to pixels.
        quantizer: a codebook as wide as the latents (`vector_quantizer`, `ema_quantizer`).
        frames_at_once: most frames of a clip that `encode` and `decode` compute together; fewer need less memory.

    Attributes:
        codebook_size: number of codes.
        spatial_factor: pixels per code along a side.
        temporal_factor: frames per code along time.
        embed_dim: width of a codebook entry.

    Raises:
        ValueError: parts that do not fit together.
    """

    def __init__(
        self,
        encoder: Emu3VisionEncoder,
        decoder: Emu3VisionDecoder,
        quantizer: VectorQuantizer | EmaQuantizer,
        frames_at_once: int = 8,
    ) -> None:
        super().__init__()
        for name in ("latent_width", "spatial_factor", "temporal_factor"):
            if (ours := getattr(encoder, name)) != (theirs := getattr(decoder, name)):
                raise ValueError(f"encoder and decoder do not fit: {name} is {ours} there and {theirs} here")
        if quantizer.width != decoder.latent_width:
            raise ValueError(
                f"quantizer.width is {quantizer.width}, decoder.latent_width {decoder.latent_width}: the decoder takes "
                "latents and codebook vectors in one batch, they must be equal"
            )
        if frames_at_once < 1:
            raise ValueError(f"frames_at_once is {frames_at_once}; expected at least 1")
        self.codebook_size, self.embed_dim = quantizer.codebook_size, quantizer.width
        self.spatial_factor, self.temporal_factor = encoder.spatial_factor, encoder.temporal_factor
        self.frames_at_once = frames_at_once
        self.encoder = encoder
        self.into_codebook = CausalConvolution(encoder.latent_width, quantizer.width, (3, 1, 1))
        self.quantizer = quantizer
        self.from_codebook = CausalConvolution(quantizer.width, decoder.latent_width, (3, 1, 1))
        self.decoder = decoder
        self.apply(_draw)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights that make the pixels, where gradients of several losses are compared."""
        return self.decoder.conv_out.weight

    @torch.no_grad()
    def encode(self, pixels: Tensor, in_pieces: bool = False) -> Tensor:
        """Codes, in evaluation mode whatever the module's.

        Args:
            pixels: pictures `(batch, 3, height, width)`, or clips `(batch, frames, 3, height, width)`. Of a clip whose
                length is no multiple of `temporal_factor` the rest has no code; decoding gives the frames before it.
            in_pieces: whether each `temporal_factor` frames of a clip are encoded without those before, as the
                published script for clips does; this gives other codes.

        Returns:
            long, `(batch, h, w)` or `(batch, time, h, w)`.

        Raises:
            ValueError: sides that are no multiples of the factor, fewer frames than a code has, or pieces of a clip
                that does not divide into them.
        """
        with evaluation_mode(self):  # batch norm must not mix the pictures of a batch
            still, steps = pixels.ndim == 4, self.temporal_factor
            if in_pieces and not still:
                self._check_whole(pixels)
                codes = self.encode(pixels.unflatten(1, (-1, steps)).flatten(0, 1))
                return codes.view(len(pixels), -1, *codes.shape[2:])
            codes = self.quantizer.nearest(self.latents(pixels).movedim(1, -1))
            return codes[:, 0] if still else codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Pixels, not clamped, in evaluation mode whatever the module's.

        Args:
            codes: of pictures `(batch, h, w)`, or of clips `(batch, time, h, w)`.

        Raises:
            ValueError: another number of axes, or codes outside the codebook.
        """
        if codes.ndim not in (3, 4):
            raise ValueError(f"codes have shape {tuple(codes.shape)}; expected (batch, h, w) or (batch, time, h, w)")
        with evaluation_mode(self):
            still = codes.ndim == 3
            vectors = self.quantizer.look_up(codes[:, None] if still else codes).movedim(-1, 1)
            return self.pixels(vectors, still)

    def latents(self, pixels: Tensor) -> Tensor:
        """What is quantised, `(batch, embed_dim, time, h, w)`, of pictures or clips as in `encode`."""
        self._check(pixels)
        if pixels.ndim == 4:  # the frames of a standing clip are equal until the temporal layers
            clip = self._by_frames(self.encoder.frames, pixels)[:, :, None]
            clip = clip.expand(-1, -1, self.temporal_factor, -1, -1)
        else:
            frames = self._by_frames(self.encoder.frames, pixels.flatten(0, 1))
            clip = frames.unflatten(0, pixels.shape[:2]).transpose(1, 2)
        return self.into_codebook(self.encoder(clip))

    def pixels(self, vectors: Tensor, still: bool) -> Tensor:
        """Pixels of codebook vectors `(batch, embed_dim, time, h, w)`.

        Args:
            vectors: entries of the codebook.
            still: whether the first frame alone is wanted.

        Returns:
            `(batch, 3, height, width)` of a still, else `(batch, frames, 3, height, width)`.
        """
        latents, modulation = self.decoder(self.from_codebook(vectors), vectors)
        if still:
            return self._by_frames(self.decoder.frames, latents[:, :, 0], modulation[:, :, 0])
        frames = (clip.transpose(1, 2).flatten(0, 1) for clip in (latents, modulation))
        return self._by_frames(self.decoder.frames, *frames).unflatten(0, (len(latents), -1))

    def forward(self, pixels: Tensor) -> Reconstruction:
        """Through the codebook and back, for training.

        Args:
            pixels: pictures `(batch, 3, height, width)`, or clips `(batch, frames, 3, height, width)`.

        Raises:
            ValueError: sides or frames that are no multiples of the factors.
        """
        self._check_whole(pixels)
        still = pixels.ndim == 4
        quantized = self.quantizer(self.latents(pixels).movedim(1, -1))
        codes = quantized.codes[:, 0] if still else quantized.codes
        made = self.pixels(quantized.vectors.movedim(-1, 1), still)
        return Reconstruction(made, codes, quantized.commitment, quantized.codebook)

    def _by_frames(self, function: nn.Module, *frames: Tensor) -> Tensor:
        """A function of independent frames on a few of them at a time, all at once where gradients are wanted."""
        if torch.is_grad_enabled() or len(frames[0]) <= self.frames_at_once:
            return function(*frames)
        parts = zip(*(clip.split(self.frames_at_once) for clip in frames), strict=True)
        return torch.cat([function(*part) for part in parts])

    def _check(self, pixels: Tensor) -> None:
        if pixels.ndim not in (4, 5) or pixels.shape[-3] != self.encoder.channels:
            raise ValueError(
                f"pixels have shape {tuple(pixels.shape)}; expected (batch, {self.encoder.channels}, height, width) or "
                f"(batch, frames, {self.encoder.channels}, height, width)"
            )
        if not all(side and side % self.spatial_factor == 0 for side in pixels.shape[-2:]):
            raise ValueError(
                f"pixels are {pixels.shape[-2]} x {pixels.shape[-1]}; both sides must be multiples of "
                f"{self.spatial_factor}: resize them (processor.images)"
            )
        if pixels.ndim == 5 and pixels.shape[1] < self.temporal_factor:
            raise ValueError(
                f"a clip of {pixels.shape[1]} frames; expected at least {self.temporal_factor} (temporal_factor): "
                "repeat its last frame"
            )

    def _check_whole(self, pixels: Tensor) -> None:
        """Refuse clips whose last frames would have no code of their own, where every frame is wanted back."""
        self._check(pixels)
        if pixels.ndim == 5 and pixels.shape[1] % self.temporal_factor:
            raise ValueError(
                f"a clip of {pixels.shape[1]} frames; expected a multiple of {self.temporal_factor} (temporal_factor): "
                "cut it (data.frames) or repeat its last frame"
            )


def _draw(part: nn.Module) -> None:
    """Kaiming's rule for convolutions and the attention's layers; biases keep torch's."""
    if isinstance(part, (nn.Conv2d, nn.Conv3d, nn.Linear)):
        nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
