"""What a terminal shows while a model draws: a bar with its speed, and a file with what there is so far."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from multimodal_zoo.files import atomic_file

if TYPE_CHECKING:
    from multimodal_zoo.inference.live import Unfinished


class DrawingBar:
    """A bar over all tokens of all pictures, or all steps of denoising; plain lines where there is no terminal.

    Args:
        pictures: how many are drawn in all.
        preview: a file with what there is so far; None writes none.
        line_seconds: how often a plain line is printed.

    Attributes:
        done: tokens, or steps, of all batches so far.
        unit: which of them.
    """

    def __init__(self, pictures: int, preview: Path | None, line_seconds: float = 20.0) -> None:
        from multimodal_zoo.inference.live import Sketching

        self.pictures, self.preview, self.line_seconds = pictures, preview, line_seconds
        self.unit = "tokens"
        self.done = self._before = self._drawn = 0
        self._start = self._shown = time.perf_counter()
        self._sketching = Sketching()
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

    def __call__(self, batch: Unfinished) -> None:
        """Count a step of a batch."""
        if batch.step == 1:  # a new one
            self._before = self.done
        self.unit, self.done = batch.unit, self._before + batch.done
        if batch.step == batch.limit:
            self._drawn += batch.count
        left = self.pictures - self._drawn - batch.count * (batch.step < batch.limit)
        total = self._before + batch.whole + left * batch.whole // batch.count
        now = time.perf_counter()
        rate = self.done / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(0, completed=self.done, total=total, rate=rate, unit=self.unit)
        elif now - self._shown >= self.line_seconds:
            self._shown = now
            print(f"{self.done:,} of {total:,} {self.unit}  {rate:,.1f} {self.unit}/s", flush=True)
        if self.preview is not None and (sheet := self._sketching(batch)) is not None:
            with atomic_file(self.preview) as path:
                sheet.save(path)


def say(text: str) -> None:
    """Print without ending the line."""
    print(text, end="", flush=True)
