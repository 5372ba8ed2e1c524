"""What can be shown while a model draws or writes: a picture of the rows so far, the words so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from multimodal_zoo.inference.painter import Sketches, preview

if TYPE_CHECKING:
    from multimodal_zoo.generation.loop import Progress

#: The pictures of the rows so far may cost so much of the time.
SHARE = 0.1


class Sketching:
    """The rows so far of a batch as one picture, seldom enough that little time goes into it.

    Args:
        model: decodes the rows.
        share: of the time that may go into pictures.
    """

    def __init__(self, model: Any, share: float = SHARE) -> None:
        self.model, self.share = model, share
        self._rows, self._next = -1, 0.0

    def __call__(self, sketches: Sketches) -> Image.Image | None:
        """A picture with rows that were not there yet; None where there are none, or it is too early for another."""
        if sketches.step == 1:  # a new batch
            self._rows = -1
        if time.perf_counter() < self._next:
            return None
        rows = sum(len(codes) for codes in sketches.codes())
        if not rows or rows == self._rows:
            return None
        start = time.perf_counter()
        sheet = beside(preview(self.model, sketches))
        self._rows, taken = rows, time.perf_counter() - start
        self._next = time.perf_counter() + taken / self.share
        return sheet


def beside(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of any sizes as one, up to eight in a row."""
    columns = min(8, len(pictures))
    wide, high = max(one.width for one in pictures), max(one.height for one in pictures)
    sheet = Image.new("RGB", (wide * columns, high * -(-len(pictures) // columns)), "white")
    for place, one in enumerate(pictures):
        sheet.paste(one, (place % columns * wide, place // columns * high))
    return sheet


class Typing:
    """Prints an answer word by word while it is written.

    Args:
        decode: ids to text.
        say: what prints.
    """

    def __init__(self, decode: Callable[[list[int]], str], say: Callable[[str], object]) -> None:
        self.decode, self.say, self._said = decode, say, ""

    def __call__(self, progress: Progress) -> None:
        """Say what is new of the first row; characters whose bytes are not all there wait."""
        text = self.decode(progress.ids[0].tolist()).rstrip("\ufffd")
        if text.startswith(self._said) and text != self._said:
            self.say(text[len(self._said) :])
            self._said = text

    def finish(self, text: str) -> None:
        """Say what is left, and end the line."""
        rest = text[len(self._said) :] if text.startswith(self._said) else f"\n{text}"
        self.say(f"{rest}\n")
        self._said = ""
