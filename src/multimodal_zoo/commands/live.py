"""What is shown while a model draws or writes: a bar with tokens per second, a picture of the rows so far, words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from multimodal_zoo.files import atomic_file

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    from multimodal_zoo.generation.loop import Progress
    from multimodal_zoo.inference.painter import Sketches

#: The picture of the rows so far may cost so much of the time.
SHARE = 0.1


class DrawingBar:
    """A bar over all tokens of all pictures, and a file with the rows so far; plain lines where there is no terminal.

    Args:
        pictures: how many are drawn in all.
        preview: the file; None writes none.
        model: decodes the rows.
        line_seconds: how often a plain line is printed.
    """

    def __init__(self, pictures: int, preview: Path | None, model: Any, line_seconds: float = 20.0) -> None:
        self.pictures, self.preview, self.model, self.line_seconds = pictures, preview, model, line_seconds
        #: tokens, or steps of denoising, so far, of all batches
        self.tokens = 0
        self.unit = "tokens"
        self._batch = self._rows = self._done = 0
        self._start = self._shown = time.perf_counter()
        self._next = 0.0
        self._bar: Any = None

    def __enter__(self) -> DrawingBar:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console()
        if console.is_terminal:
            text = TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}")
            rate = TextColumn("{task.fields[rate]:,.1f} {task.fields[unit]}/s")
            columns = (text, BarColumn(), rate, TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=console, refresh_per_second=4)
            self._bar.start()
            self._bar.add_task("", total=None, rate=0.0, unit=self.unit)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, sketches: Sketches) -> None:
        """Count a step of a batch."""
        from multimodal_zoo.inference.painter import tokens_of

        if sketches.step == 1:  # a new batch
            self._batch, self._rows = self.tokens, -1
        self.tokens = self._batch + sketches.tokens
        now = time.perf_counter()
        whole = sum(tokens_of(grid) for grid in sketches.grids)
        if sketches.step == sketches.limit:
            self._done += len(sketches.grids)
        left = self.pictures - self._done - len(sketches.grids) * (sketches.step < sketches.limit)
        total = self._batch + whole + left * whole // len(sketches.grids)
        rate = self.tokens / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(0, completed=self.tokens, total=total, rate=rate)
        elif now - self._shown >= self.line_seconds:
            self._shown = now
            print(f"{self.tokens:,} of {total:,} tokens  {rate:,.1f} tokens/s", flush=True)
        if self.preview is not None and now >= self._next:
            self._sketch(sketches)

    def denoised(self, done: int, most: int) -> None:
        """Count a step of a batch that is drawn by diffusion: each is one of the network over the whole batch."""
        self.unit = "steps"
        self.tokens += 1
        now = time.perf_counter()
        if self._bar is not None:
            rate = self.tokens / max(now - self._start, 1e-9)
            self._bar.update(0, completed=self.tokens, total=self.tokens + most - done, rate=rate, unit=self.unit)
        elif now - self._shown >= self.line_seconds:
            self._shown = now
            print(f"{done:,} of {most:,} steps of a batch", flush=True)

    def _sketch(self, sketches: Sketches) -> None:
        """Write the rows so far, if there is a new one, seldom enough that little time goes into it."""
        from multimodal_zoo.inference.painter import preview

        rows = sum(len(codes) for codes in sketches.codes())
        if not rows or rows == self._rows:
            return
        start = time.perf_counter()
        sheet = beside(preview(self.model, sketches))
        assert self.preview is not None
        with atomic_file(self.preview) as path:
            sheet.save(path)
        self._rows, taken = rows, time.perf_counter() - start
        self._next = time.perf_counter() + taken / SHARE


def beside(pictures: Sequence[PilImage]) -> PilImage:
    """Pictures of any sizes as one, up to eight in a row."""
    from PIL import Image

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


def say(text: str) -> None:
    """Print without ending the line."""
    print(text, end="", flush=True)
