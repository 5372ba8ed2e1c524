"""Files that a visitor uploaded: looked at before they are read."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from multimodal_zoo.data.pictures import BROKEN, load, open_picture, to_rgb
from multimodal_zoo.gallery.limits import Limits

#: Kinds of pictures that are decoded; others run programs (EPS), or are rarely met and seldom tested.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def check_file(path: str | Path, limits: Limits) -> Path:
    """The path of an uploaded file.

    Args:
        path: where the server put it.
        limits: of its bytes.

    Raises:
        ValueError: a link, no file, an empty or a too large one.
    """
    place = Path(path)
    if place.is_symlink() or not place.is_file():
        raise ValueError(f"{place.name} is no uploaded file")
    size = place.stat().st_size
    if not size:
        raise ValueError(f"{place.name} is empty")
    if size > limits.bytes:
        raise ValueError(f"{place.name} has {size / 2**20:.1f} MB; at most {limits.megabytes} MB are taken")
    return place


def read_picture(path: str | Path, limits: Limits) -> Image.Image:
    """An uploaded picture, upright, in 8-bit RGB.

    Args:
        path: where the server put it.
        limits: of its bytes and pixels; the pixels are told by the header, before any is decoded.

    Raises:
        ValueError: no picture of a kind in `FORMATS`, a broken one, or too many bytes or pixels.
    """
    place = check_file(path, limits)
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


def maybe_picture(path: str | Path | None, limits: Limits) -> Image.Image | None:
    """An uploaded picture, if there is one; see `read_picture`."""
    return None if path is None else read_picture(path, limits)
