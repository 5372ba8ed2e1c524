"""What can be shown while a model draws or writes: a picture of what there is so far, the words so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from PIL import Image

if TYPE_CHECKING:
    from multimodal_zoo.generation.loop import Progress

#: The pictures of what there is so far may cost so much of the time.
SHARE = 0.1


class Unfinished(Protocol):
    """A batch of pictures while it is drawn, token by token (`painter.Sketches`) or by diffusion (`Denoised`)."""

    #: What is counted: tokens, or steps.
    unit: ClassVar[str]

    @property
    def step(self) -> int:
        """Calls of the network so far; 1 where a batch begins."""
        ...

    @property
    def limit(self) -> int:
        """All of them."""
        ...

    @property
    def count(self) -> int:
        """Pictures of the batch."""
        ...

    @property
    def done(self) -> int:
        """Units so far."""
        ...

    @property
    def whole(self) -> int:
        """All of them."""
        ...

    @property
    def parts(self) -> int:
        """What can be seen so far: another number, another picture; 0 for nothing."""
        ...

    def pictures(self) -> list[Image.Image]:
        """The pictures as far as they are."""
        ...


class Sketching:
    """What there is so far of a batch as one picture, seldom enough that little time goes into it.

    Args:
        share: of the time that may go into pictures.
    """

    def __init__(self, share: float = SHARE) -> None:
        self.share = share
        self._parts, self._next = 0, 0.0

    def __call__(self, batch: Unfinished) -> Image.Image | None:
        """A picture of what was not there yet; None where nothing is new, or it is too early for another."""
        if batch.step == 1:  # a new one
            self._parts = 0
        if time.perf_counter() < self._next:
            return None
        parts = batch.parts
        if not parts or parts == self._parts:
            return None
        start = time.perf_counter()
        sheet = beside(batch.pictures())
        self._parts, taken = parts, time.perf_counter() - start
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
