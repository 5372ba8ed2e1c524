"""Convolutional image encoders of a dual encoder as encoders of feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from multimodal_zoo.registry import BEV


@BEV.register_module(name="stage_maps")
class StageMaps(nn.Module):
    """The maps behind the stages of an image encoder; what it has behind its last map goes, its weights too.

    Args:
        encoder: an image encoder with `feature_maps` (`modified_resnet`, `residual_network`).
        channels: of its stages, the finest map first.

    Raises:
        ValueError: an encoder without maps, or of other channels.
    """

    def __init__(self, encoder: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        if not callable(getattr(encoder, "feature_maps", None)):
            raise ValueError(
                f"image_encoder.encoder is a {type(encoder).__name__}, which has no maps of stages; "
                "bev@model.image_encoder=token_maps takes any image encoder"
            )
        if tuple(channels) != tuple(encoder.channels):
            raise ValueError(
                f"image_encoder.channels is {list(channels)}; the stages of image_encoder.encoder have "
                f"{list(encoder.channels)}"
            )
        self.channels, self.strides = tuple(encoder.channels), tuple(encoder.strides)
        for name in encoder.behind_maps:
            setattr(encoder, name, None)
        self.encoder: Any = encoder

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images `(n, 3, height, width)` to one map a stage, `(n, channels[i], h, w)`."""
        return self.encoder.feature_maps(images)
