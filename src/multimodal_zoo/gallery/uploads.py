"""Files that a visitor uploaded: looked at before they are read."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from multimodal_zoo.data.pictures import BROKEN, load, open_picture, to_rgb
from multimodal_zoo.gallery.showroom import Showroom

#: Kinds of pictures that are decoded; others run programs (EPS), or are rarely met and seldom tested.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def check_file(room: Showroom, path: str | Path) -> Path:
    """The path of an uploaded file.

    Args:
        room: in whose folder it lies, and whose limits hold.
        path: where the server put it.

    Raises:
        ValueError: a file elsewhere, a link, no file, an empty or a too large one.
    """
    place, limits = Path(path), room.limits
    if place.is_symlink() or not place.is_file() or not place.resolve().is_relative_to(room.scratch):
        raise ValueError(f"{place.name} is no uploaded file")
    size = place.stat().st_size
    if not size:
        raise ValueError(f"{place.name} is empty")
    if size > limits.bytes:
        raise ValueError(f"{place.name} has {size / 2**20:.1f} MB; at most {limits.megabytes} MB are taken")
    return place


def read_picture(room: Showroom, path: str | Path | None) -> Image.Image:
    """An uploaded picture, upright, in 8-bit RGB.

    Args:
        room: in whose folder it lies, and whose limits hold; pixels are told by the header, before any is decoded.
        path: where the server put it; None if there is none.

    Raises:
        ValueError: no picture of a kind in `FORMATS`, a broken one, or too many bytes or pixels.
    """
    if path is None:
        raise ValueError("upload a picture first")
    place, limits = check_file(room, path), room.limits
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter, or wanted
            image = Image.open(place, formats=FORMATS)
    except Image.DecompressionBombError:
        raise ValueError(f"{place.name} has far more than {limits.megapixels} million pixels") from None
    except UnidentifiedImageError:
        raise ValueError(f"{place.name} is no picture that is read here; expected {', '.join(FORMATS)}") from None
    except BROKEN:
        raise ValueError(f"{place.name} is a broken picture") from None
    with image:
        if image.width * image.height > limits.pixels:
            raise ValueError(
                f"{place.name} has {image.width} x {image.height} pixels; at most {limits.megapixels} million are taken"
            )
        return to_rgb(load(open_picture(image, place.name), place.name))


def asked(
    room: Showroom, text: str | None, what: str, picture: str | None, otherwise: str
) -> tuple[str, Image.Image | None]:
    """What a visitor typed, and the picture beside it; one of them at least.

    Args:
        room: whose limits hold.
        text: as typed.
        what: the field's name, for errors.
        picture: path of an uploaded one, or None.
        otherwise: what to do where both are missing, for the error.

    Raises:
        ValueError: both are missing, or one does not fit.
    """
    words = room.limits.text(text, what)
    seen = None if picture is None else read_picture(room, picture)
    if seen is None and not words:
        raise ValueError(otherwise)
    return words, seen
