"""Whether drawn pictures are copies: the nearest training picture of each, by pixels, by codes and by embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as PilImage
from torch import Tensor, nn

from multimodal_zoo.evaluation.features import batched

#: Share of equal codes from which on a picture counts as a copy.
COPY = 0.9
#: Elements compared at once.
BLOCK = 2**26


@dataclass(frozen=True)
class Seen:
    """Pictures as a visual tokenizer sees them.

    Attributes:
        pixels: uint8 (pictures, height, width, 3).
        codes: long (pictures, rows, columns).
    """

    pixels: Tensor
    codes: Tensor

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Nearest:
    """The nearest picture of a gallery to each of some pictures.

    Attributes:
        number: (pictures,) its number.
        value: (pictures,) how near it is: a distance, or a share.
    """

    number: Tensor
    value: Tensor


def seen(model: Any, processor: Any, images: Iterable[Any], device: torch.device, batch_size: int) -> Seen:
    """Resize pictures as the model does, and encode them.

    Args:
        model: has `encode`.
        processor: its `images` and `pictures`.
        images: consumed as a stream.
        device: where the model lies.
        batch_size: pictures encoded at a time.

    Raises:
        ValueError: no picture, or pictures that get different sizes.
    """
    pixels, codes = [], []
    for batch in batched(images, batch_size):
        made = processor.images(batch)
        if len({tuple(one.shape) for one in made}) > 1:
            raise ValueError("pictures of different sizes cannot be compared by pixels; give square ones")
        stacked = torch.stack(made)
        pixels.append(as_pixels(processor.pictures(stacked)))
        codes.append(model.encode(stacked.to(device)).cpu())
    if not pixels:
        raise ValueError("there is no picture to compare with; check the evaluation's datasets")
    return Seen(torch.cat(pixels), torch.cat(codes))


def as_pixels(images: Sequence[PilImage]) -> Tensor:
    """PIL pictures of one size as uint8 (pictures, height, width, 3)."""
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))


def nearest_pixels(queries: Tensor, gallery: Tensor) -> Nearest:
    """By the root of the mean squared difference of values from 0 to 1; both uint8 (pictures, height, width, 3).

    Raises:
        ValueError: pictures of another size.
    """
    if queries.shape[1:] != gallery.shape[1:]:
        raise ValueError(f"pictures {tuple(queries.shape[1:3])} cannot be compared with {tuple(gallery.shape[1:3])}")
    flat, others = queries.flatten(1).float() / 255, gallery.flatten(1).float() / 255
    value, number = torch.cdist(flat, others).min(dim=1)
    return Nearest(number, value / flat.shape[1] ** 0.5)


def nearest_codes(queries: Tensor, gallery: Tensor) -> Nearest:
    """By the share of places with equal codes; both (pictures, rows, columns)."""
    flat, others = queries.flatten(1), gallery.flatten(1)
    size = max(1, BLOCK // others.numel())
    best = [(part[:, None] == others).float().mean(dim=2).max(dim=1) for part in flat.split(size)]
    return Nearest(torch.cat([found.indices for found in best]), torch.cat([found.values for found in best]))


def nearest_vectors(queries: Tensor, gallery: Tensor) -> Nearest:
    """By the cosine of normalised embeddings (pictures, width)."""
    value, number = (queries @ gallery.T).max(dim=1)
    return Nearest(number, value)


def distances(one: Tensor, other: Tensor) -> Tensor:
    """Of each pair of pictures, uint8 (pictures, height, width, 3): root of the mean squared difference, 0 to 1."""
    return ((one.float() - other.float()) / 255).square().flatten(1).mean(dim=1).sqrt()


def embeddings(clip: nn.Module, images: Sequence[PilImage], texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Normalised embeddings of pictures and of texts by a dual encoder: (pictures, width) and (texts, width)."""
    from torch.nn.functional import normalize

    from multimodal_zoo.evaluation.features import embed_images
    from multimodal_zoo.evaluation.samples import text_embeddings

    processor: Any = clip.processor
    device = next(clip.parameters()).device
    vectors = embed_images(clip, images, processor.images, batch_size=64, device=device)
    words = text_embeddings(clip, processor, texts, batch_size=64, device=device) if texts else vectors[:0]
    return normalize(vectors, dim=-1), normalize(words, dim=-1)
