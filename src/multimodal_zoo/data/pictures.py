"""Opening pictures of every mode and bringing them to 8-bit RGB.

Alpha is composited on a background before it is dropped: `convert("RGB")` alone shows the hidden colour of transparent
pixels as black or coloured fringes. Published models were nevertheless trained and scored with it alone, hence the
background None.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.skips import UnusableError

PathLike: TypeAlias = "str | os.PathLike[str]"
#: What a picture may be given as.
AnyPicture: TypeAlias = "Picture | PathLike | bytes"
#: Red, green and blue (0 to 255) behind transparent pixels; None drops alpha as it stands.
Background: TypeAlias = "Sequence[int] | None"
WHITE = (255, 255, 255)
#: Suffixes of files that are taken for pictures, in the order in which one of several is chosen.
PICTURE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff")
#: The EXIF tag that says which side is up.
ORIENTATION = 0x0112
#: Where PIL keeps what that tag may stand in.
TAGGED = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
#: What PIL raises at files that are not what they seem.
BROKEN = (
    OSError, SyntaxError, ValueError, KeyError, IndexError, MemoryError, struct.error, Image.DecompressionBombError
)  # fmt: skip
#: PIL modes of more than eight bits a channel.
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def from_array(array: np.ndarray) -> Image.Image:
    """A PIL image of a uint8 array (height, width[, 3 or 4]).

    Raises:
        ValueError: another dtype or shape, or no pixels.
    """
    usual = array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    if not usual or not array.size:
        raise ValueError(f"expected uint8 of shape (height, width[, 3 or 4]), got {array.dtype} {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Bring images of more than eight bits a channel to L; all others stay.

    Sixteen bits are scaled to eight; floats are taken as 0 to 1, integers above 255 as 16 bits.
    """
    if image.mode not in DEEP:
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0, neginf=0)
    largest = values.max(initial=0)
    top = 65535.0 if largest > 255 or image.mode.startswith("I;16") else 1.0 if largest <= 1 else 255.0
    return Image.fromarray((values.clip(0, top) * (255 / top) + 0.5).astype(np.uint8))


def ready_to_resize(image: Image.Image, background: Background = WHITE) -> Image.Image:
    """Bring an image to a mode in which resizing means something.

    Deep and palette-with-alpha images always change mode. Other palette images, bilevel ones and those with a
    transparent colour do so unless `background` is None: published transforms resize these as they are.
    """
    image = to_eight_bits(image)
    if image.mode == "PA":
        return image.convert("RGBA")
    if background is None:
        return image
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    return image


def to_rgb(image: Image.Image, background: Background = WHITE) -> Image.Image:
    """8-bit RGB: alpha composited on `background` or, where that is None, dropped; grey and CMYK converted."""
    image = ready_to_resize(image, background)
    if background is not None and image.mode in ("RGBA", "LA", "La", "RGBa"):
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] == 255:  # opaque: compositing would change nothing
            return image.convert("RGB")
        ground = Image.new("RGBA", image.size, (*background, 255))
        return Image.alpha_composite(ground, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def open_picture(source: Picture | PathLike | bytes, key: str = "", turn: bool = True) -> Image.Image:
    """A PIL image from an image, an array, a path or encoded bytes, turned upright by its EXIF tag.

    Files are read as far as their header where that is enough, so that a JPEG can still be decoded at reduced size.

    Args:
        source: what to open.
        key: the sample, for the error.
        turn: whether pictures that carry an EXIF orientation are turned by it; if not, they lose it.

    Raises:
        TypeError: none of these, a tensor for instance.
        UnusableError: the file is missing, or is no image that PIL can read, or is far too large to be one.
    """
    if isinstance(source, np.ndarray):
        return from_array(source)
    if not isinstance(source, (Image.Image, str, os.PathLike, bytes)) and not hasattr(source, "read"):
        what = type(source).__name__
        if hasattr(source, "shape"):
            what += f" of {source.dtype} {tuple(source.shape)}"
        raise TypeError(
            f"expected a PIL image, a uint8 array (height, width, 3), a path or bytes, got {what}; "
            "of a tensor (3, height, width) take tensor.permute(1, 2, 0).numpy()"
        )
    name = key or (f"{len(source)} bytes" if isinstance(source, bytes) else str(getattr(source, "filename", source)))
    if isinstance(source, (str, os.PathLike)) and _blocks(source):
        raise UnusableError("no plain file", name)
    image: Image.Image | None = None
    try:
        if isinstance(source, Image.Image):
            image = source
        else:
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image) if turn else _untagged(image)
    except FileNotFoundError as error:
        raise UnusableError("missing image file", name) from error
    except BROKEN as error:
        if image is not None:
            image.close()  # its file would stay open
        raise UnusableError("broken image", name) from error


def _blocks(path: PathLike) -> bool:
    """Whether a path names a pipe, a device or a folder: who opens one may wait for ever."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False  # opening it says what is wrong


def _untagged(image: Image.Image) -> Image.Image:
    """The image as it is stored, without what would have it turned later on."""
    plain = image.copy()
    for place in TAGGED:
        plain.info.pop(place, None)
    return plain


def load(image: Image.Image, key: str = "") -> Image.Image:
    """The image with its pixels decoded.

    Raises:
        UnusableError: they cannot be, the file is cut off for instance, or there are none.
    """
    name = key or str(getattr(image, "filename", "") or image)
    if 0 in image.size:
        raise UnusableError("empty image", f"{name} of {image.width} x {image.height} pixels")
    try:
        image.load()
    except BROKEN as error:
        image.close()  # its file would stay open
        raise UnusableError("broken image", name) from error
    return image


def listed_pictures(pictures: Sequence[AnyPicture]) -> list[AnyPicture]:
    """Pictures as a list.

    Raises:
        TypeError: one picture in place of a list; its letters or rows would be taken for pictures.
    """
    if isinstance(pictures, (str, bytes, os.PathLike, Image.Image)) or getattr(pictures, "ndim", 4) < 4:
        raise TypeError(f"images: expected a list of pictures, got one {type(pictures).__name__}; write [picture]")
    return list(pictures)
