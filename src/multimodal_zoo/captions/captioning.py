"""Synthetic captions for rows that have a picture and lack one, before they are fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from multimodal_zoo.captions.rows import CaptionRow

if TYPE_CHECKING:
    from PIL.Image import Image

    from multimodal_zoo.captions.captioners import Captioner


def captioned(rows: Sequence[CaptionRow], captioner: Captioner) -> list[CaptionRow]:
    """The rows with the captioner's words; each row without any has a problem then.

    Args:
        rows: those without a picture, or with a synthetic caption that is not to be replaced, stay as they are.
        captioner: what looks at pictures; its `when` says whether it replaces (`always`) or fills in (`missing`).

    Returns:
        As many rows, in the same order.
    """
    found = list(rows)
    places, pictures = [], []
    for place, row in enumerate(rows):
        if row.problem is not None or (row.synthetic and captioner.when != "always"):
            continue
        if row.image is None:
            found[place] = row if row.synthetic else replace(row, problem="no synthetic caption and no picture")
            continue
        picture = _opened(row.image)
        if isinstance(picture, str):
            found[place] = replace(row, problem=picture)
            continue
        places.append(place)
        pictures.append(picture)
        if len(places) == captioner.batch_size:
            _describe(found, places, pictures, captioner)
            places, pictures = [], []
    if places:
        _describe(found, places, pictures, captioner)
    return found


def _describe(rows: list[CaptionRow], places: Sequence[int], pictures: Sequence[Image], captioner: Captioner) -> None:
    for place, text in zip(places, captioner.caption(list(pictures)), strict=True):
        caption = " ".join(text.split())
        if caption:
            rows[place] = replace(rows[place], synthetic=(caption,))
        elif not rows[place].synthetic:
            rows[place] = replace(rows[place], problem="the captioner wrote nothing")


def _opened(image: bytes) -> Image | str:
    """A picture on white, or what is wrong with it."""
    from multimodal_zoo.data.pictures import load, open_picture, to_rgb
    from multimodal_zoo.data.skips import UnusableError

    try:
        return to_rgb(load(open_picture(image)))
    except UnusableError as error:
        return str(error)
