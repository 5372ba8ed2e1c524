"""Embedding videos with an image model."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import normalize


def encode_video(model: Any, frames: Tensor) -> Tensor:
    """The mean of the frames' L2-normalised embeddings, as EVA-CLIP evaluates and trains on videos (section 3.1).

    The mean itself is not normalised again; classification and retrieval do that.

    Args:
        model: has `encode_image`.
        frames: (batch, frames, 3, height, width), prepared by the model's own image transform.

    Returns:
        (batch, width).

    Raises:
        ValueError: another number of dimensions, or no frame.
    """
    if frames.ndim != 5 or frames.shape[1] == 0:
        raise ValueError(f"frames: expected (batch, frames, 3, height, width), got {tuple(frames.shape)}")
    embeddings = normalize(model.encode_image(frames.flatten(0, 1)), dim=-1)
    return embeddings.unflatten(0, frames.shape[:2]).mean(dim=1)
