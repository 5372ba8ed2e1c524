"""What a terminal shows while a model draws: a bar with tokens per second, and a file with the rows so far."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from multimodal_zoo.files import atomic_file

if TYPE_CHECKING:
    from multimodal_zoo.inference.painter import Sketches


class DrawingBar:
    """A bar over all tokens of all pictures, and a file with the rows so far; plain lines where there is no terminal.

    Args:
        pictures: how many are drawn in all.
        preview: the file; None writes none.
        model: decodes the rows.
        line_seconds: how often a plain line is printed.
    """

    def __init__(self, pictures: int, preview: Path | None, model: Any, line_seconds: float = 20.0) -> None:
        from multimodal_zoo.inference.live import Sketching

        self.pictures, self.preview, self.line_seconds = pictures, preview, line_seconds
        #: tokens, or steps of denoising, so far, of all batches
        self.tokens = 0
        self.unit = "tokens"
        self._batch = self._done = 0
        self._start = self._shown = time.perf_counter()
        self._sketching = Sketching(model)
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
            self._batch = self.tokens
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
        if self.preview is not None and (sheet := self._sketching(sketches)) is not None:
            with atomic_file(self.preview) as path:
                sheet.save(path)

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


def say(text: str) -> None:
    """Print without ending the line."""
    print(text, end="", flush=True)
