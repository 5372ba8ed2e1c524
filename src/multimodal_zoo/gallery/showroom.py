"""What the tabs share: models, pictures to search, bounds, and a folder of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multimodal_zoo.gallery.albums import Albums
from multimodal_zoo.gallery.limits import Limits
from multimodal_zoo.gallery.shelf import Shelf


@dataclass(frozen=True)
class Showroom:
    """What is shown.

    Attributes:
        shelf: the models.
        albums: the pictures that can be searched.
        limits: what one visitor may ask for.
        scratch: a folder for uploads and what is made; nothing else is served.
    """

    shelf: Shelf
    albums: Albums
    limits: Limits
    scratch: Path
