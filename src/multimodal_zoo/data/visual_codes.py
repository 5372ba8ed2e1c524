"""Pictures and clips of documents to codes of a visual tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.data.documents import Codes, Document, Image, Picture, Segment, Video
from multimodal_zoo.data.size_rule import Emu3ImageTransform, UnfitPictureError
from multimodal_zoo.data.skips import UnusableError


class PixelEncoder(Protocol):
    """A visual tokenizer, or a model that has one."""

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes of pixels."""
        ...


def encode_pictures(
    encoder: PixelEncoder,
    pixels: Sequence[Tensor],
    *,
    pad: bool = False,
    batch_size: int = 8,
    device: torch.device | str | None = None,
) -> list[Tensor]:
    """Codes of pictures and clips of any sizes; those of one size are encoded together.

    Args:
        encoder: the visual tokenizer.
        pixels: float (3, height, width) of a picture, (frames, 3, height, width) of a clip.
        pad: encode all together, the smaller ones filled up with zeros (mid-grey) on the right and below, and cut the
            codes, as the published processor can. Attention sees the filling, so codes differ from those without.
        batch_size: pictures or clips encoded at a time.
        device: where the tokenizer is; None: where the pixels are.

    Returns:
        long (rows, columns) or (steps, rows, columns) on the CPU, one for each.
    """
    sizes = [tuple(one.shape[-2:]) for one in pixels]
    if pad and sizes:
        high, wide = (max(size[side] for size in sizes) for side in (0, 1))
        pixels = [F.pad(one, (0, wide - one.shape[-1], 0, high - one.shape[-2])) for one in pixels]
    codes: dict[int, Tensor] = {}
    for shape in dict.fromkeys(one.shape for one in pixels):
        places = [place for place, one in enumerate(pixels) if one.shape == shape]
        for start in range(0, len(places), batch_size):
            part = places[start : start + batch_size]
            batch = torch.stack([pixels[place] for place in part])
            with torch.no_grad():
                encoded = encoder.encode(batch if device is None else batch.to(device)).cpu()
            codes |= dict(zip(part, encoded, strict=True))
    found = [codes[place] for place in range(len(pixels))]
    if not pad or not found:
        return found
    factor = high // found[0].shape[-2]
    return [one[..., : rows // factor, : columns // factor] for one, (rows, columns) in zip(found, sizes, strict=True)]


def clip_pixels(frames: Sequence[Picture], transform: Emu3ImageTransform) -> Tensor:
    """The pixels of a clip, float (frames, 3, height, width).

    Raises:
        ValueError: frames of different sizes.
        UnfitPictureError, UnusableError: frames that cannot be used.
    """
    pixels = transform(frames)
    if len({one.shape for one in pixels}) != 1:
        raise ValueError(f"a clip of {len(frames)} frames needs frames of one size")
    return torch.stack(pixels)


def encode_clip(
    encoder: PixelEncoder, transform: Emu3ImageTransform, frames: Sequence[Picture], device: torch.device | str | None
) -> Tensor:
    """Codes (steps, rows, columns) of the frames of a clip.

    Raises:
        ValueError: fewer frames than the tokenizer makes one step of, or frames of different sizes.
    """
    return encode_pictures(encoder, [clip_pixels(frames, transform)], device=device)[0]


def pixels_of(document: Document, transform: Emu3ImageTransform, frames: int = 1) -> list[Tensor]:
    """The pixels of a document's pictures and clips in order, as `encode_pictures` takes them.

    Args:
        document: any.
        transform: the model's image transform.
        frames: fewest frames of a clip: those that the tokenizer makes one step of. A rest behind the last whole step
            has no code.

    Raises:
        UnusableError: a picture that cannot be read or is of a shape that the rule refuses, or such a clip.
    """
    found = []
    try:
        for segment in document.segments:
            if isinstance(segment, Image):
                found += transform([segment.image])
            elif isinstance(segment, Video):
                if len(segment.frames) < frames:
                    raise UnusableError(f"clip of fewer than {frames} frames", document.key)
                found.append(clip_pixels(segment.frames, transform))
    except UnfitPictureError as error:
        raise UnusableError("picture of a shape that is not encoded", document.key) from error
    except ValueError as error:
        raise UnusableError("clip of frames of different sizes", document.key) from error
    return found


def with_codes(
    documents: Sequence[Document],
    encoder: PixelEncoder,
    transform: Emu3ImageTransform,
    *,
    pixels: Sequence[Sequence[Tensor]] | None = None,
    pad: bool = False,
    batch_size: int = 8,
    device: torch.device | str | None = None,
) -> list[Document]:
    """The same documents with codes in place of pictures and clips; texts and codes stay as they are.

    Args:
        documents: any.
        encoder: the visual tokenizer.
        transform: the model's image transform.
        pixels: of each document, where `pixels_of` has made them already.
        pad: as in `encode_pictures`.
        batch_size: pictures encoded at a time.
        device: where the tokenizer is.

    Raises:
        UnusableError: a picture or clip that cannot be used.
    """
    frames = getattr(encoder, "temporal_factor", 1)
    made = [pixels_of(one, transform, frames) for one in documents] if pixels is None else pixels
    flat = [one for several in made for one in several]
    encoded = iter(encode_pictures(encoder, flat, pad=pad, batch_size=batch_size, device=device))

    def swapped(segment: Segment) -> Segment:
        """A segment with codes in place of pixels."""
        if isinstance(segment, Image):
            return Codes(next(encoded).numpy())
        if isinstance(segment, Video):
            return Codes(next(encoded).numpy(), segment.rate)
        return segment

    return [replace(one, segments=[swapped(segment) for segment in one.segments]) for one in documents]
