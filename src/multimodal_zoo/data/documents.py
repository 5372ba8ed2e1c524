"""The one sample type: a document is a sequence of texts, images, videos and visual codes with facts about it.

A captioned picture, an interleaved page, a conversation and a video with a question are all documents. Readers yield
them; collation turns them into tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from PIL.Image import Image as PilImage

#: What a picture may be: a PIL image, or uint8 of shape (height, width), (height, width, 3) or (height, width, 4).
Picture: TypeAlias = PilImage | np.ndarray


@dataclass(frozen=True)
class Text:
    """A piece of text.

    Attributes:
        text: the words.
        role: who says it in a conversation (`system`, `user`, `assistant`); None outside of one.
    """

    text: str
    role: str | None = None


@dataclass(frozen=True, eq=False)
class Image:
    """A picture, not yet resized.

    Attributes:
        image: PIL image of any mode, or uint8 array (height, width[, 3 or 4]); four channels are straight RGBA.
    """

    image: Picture


@dataclass(frozen=True, eq=False)
class Video:
    """Pictures in order of time.

    Attributes:
        frames: the pictures.
        rate: frames per second.
    """

    frames: list[Picture]
    rate: float


@dataclass(frozen=True, eq=False)
class Codes:
    """A picture or a clip that a visual tokenizer has encoded already.

    Attributes:
        codes: integers of the codebook, (rows, columns) for a picture, (steps, rows, columns) for a clip.
        rate: frames per second of a clip before encoding; None for a picture.
    """

    codes: np.ndarray
    rate: float | None = None


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture that a model has read already (Emu); in a clip it stands in place of a frame.

    Attributes:
        visual: float (embeddings, width), its visual embeddings.
    """

    visual: Any


def code_array(found: np.ndarray, *dimensions: int) -> np.ndarray:
    """Codes of a file as int32.

    Args:
        found: what the file holds.
        dimensions: how many the array may have: 2 for a picture, 3 for a clip.

    Raises:
        ValueError: an array of another shape, of other values than whole numbers, or empty.
    """
    usual = found.ndim in dimensions and found.dtype.kind in "iu" and found.size
    if not usual or int(found.max()) >= 2**31 or int(found.min()) < -(2**31):
        raise ValueError(f"codes of {found.dtype} {found.shape}")
    return found.astype(np.int32)


Segment: TypeAlias = Text | Image | Video | Codes | Seen


@dataclass(frozen=True, eq=False)
class Document:
    """One sample.

    Attributes:
        segments: texts, images, videos and visual codes in reading order.
        meta: facts about the sample. Readers of pairs set `key` (unique in the data set), and where they know them
            `concept`, `group`, `subgroup`, `style`, `keywords`, `aliases`, `label`, `texts`.
    """

    segments: list[Segment]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The sample's name in its data set."""
        return str(self.meta.get("key", ""))

    @property
    def image(self) -> Picture:
        """The first picture.

        Raises:
            ValueError: the document has none.
        """
        for segment in self.segments:
            if isinstance(segment, Image):
                return segment.image
        raise ValueError(f"document {self.key!r} has no image among its {len(self.segments)} segments")

    @property
    def text(self) -> str:
        """The first text.

        Raises:
            ValueError: the document has none.
        """
        for segment in self.segments:
            if isinstance(segment, Text):
                return segment.text
        raise ValueError(f"document {self.key!r} has no text among its {len(self.segments)} segments")


def pair(image: Picture, text: str, meta: dict[str, Any]) -> Document:
    """A document of one image and one text."""
    return Document([Image(image), Text(text)], meta)
