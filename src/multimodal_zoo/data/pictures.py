"""Opening pictures of every mode and bringing them to 8-bit RGB.

Alpha is composited on white before it is dropped: `convert("RGB")` alone shows the hidden colour of transparent pixels
as black or coloured fringes.
"""

from __future__ import annotations

import io
import os
import struct
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.skips import UnusableError

PathLike: TypeAlias = "str | os.PathLike[str]"
#: The EXIF tag that says which side is up.
ORIENTATION = 0x0112
#: What PIL raises at files that are not what they seem.
BROKEN = (OSError, SyntaxError, ValueError, KeyError, IndexError, struct.error, Image.DecompressionBombError)
#: PIL modes of more than eight bits a channel.
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def from_array(array: np.ndarray) -> Image.Image:
    """A PIL image of a uint8 array (height, width[, 3 or 4]).

    Raises:
        ValueError: another dtype or shape.
    """
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ValueError(f"expected uint8 of shape (height, width[, 3 or 4]), got {array.dtype} {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Bring palette, bilevel and 16-bit images to L, RGB or RGBA, where bicubic resizing means something.

    Sixteen bits are scaled to eight; floats are taken as 0 to 1, integers above 255 as 16 bits.
    """
    if image.mode in DEEP:
        values = np.asarray(image, dtype=np.float32)
        largest = values.max(initial=0)
        top = 65535.0 if largest > 255 or image.mode.startswith("I;16") else 1.0 if largest <= 1 else 255.0
        return Image.fromarray((values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8))
    if image.mode == "P" or image.mode == "PA":
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB: alpha composited on white, grey and CMYK converted."""
    image = to_eight_bits(image)
    if image.mode in ("RGBA", "LA", "La", "RGBa"):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] == 255:  # opaque: compositing would change nothing
            return image.convert("RGB")
        ground = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def open_picture(source: Picture | PathLike | bytes, key: str = "", turn: bool = True) -> Image.Image:
    """A PIL image from an image, an array, a path or encoded bytes; files are turned upright by their EXIF tag.

    Files are read as far as their header where that is enough, so that a JPEG can still be decoded at reduced size.

    Args:
        source: what to open.
        key: the sample, for the error.
        turn: whether files are turned by their EXIF tag.

    Raises:
        UnusableError: the file is missing, or is no image that PIL can read, or is far too large to be one.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        return from_array(source)
    name = key or (str(source) if not isinstance(source, bytes) else f"{len(source)} bytes")
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        return image if not turn or image.getexif().get(ORIENTATION, 1) == 1 else ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise UnusableError("missing image file", name) from error
    except BROKEN as error:
        raise UnusableError("broken image", name) from error


def load(image: Image.Image, key: str = "") -> Image.Image:
    """The image with its pixels decoded.

    Raises:
        UnusableError: they cannot be, the file is cut off for instance.
    """
    try:
        image.load()
    except BROKEN as error:
        raise UnusableError("broken image", key or str(getattr(image, "filename", "") or image)) from error
    return image
