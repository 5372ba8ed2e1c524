"""Reports without charts, for runs whose reports nobody looks at: drawing them takes longer than their few steps."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager

from multimodal_zoo.evaluation import pictures

#: A white pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==")


@contextmanager
def undrawn() -> Iterator[None]:
    """Charts of runs and confusion matrices inside are a pixel."""
    curves, confusion_matrix = pictures.curves, pictures.confusion_matrix
    pictures.curves, pictures.confusion_matrix = lambda panels: PIXEL, lambda counts, names: PIXEL
    try:
        yield
    finally:
        pictures.curves, pictures.confusion_matrix = curves, confusion_matrix
