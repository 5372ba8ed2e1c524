"""A progress bar that counts documents and shows images and texts per second."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def in_words(rates: Mapping[str, float]) -> str:
    """E.g. `312 images/s, 2,410 texts/s`."""
    return ", ".join(f"{rate:,.0f} {kind}/s" if rate >= 100 else f"{rate:.3g} {kind}/s" for kind, rate in rates.items())


def counting_bar(transient: bool) -> Progress:
    """A bar that counts, with a field `rate` for what is said of speed.

    Args:
        transient: whether it goes when it is through.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
    return Progress(*columns, transient=transient)


class Throughput:
    """Counts what was embedded and the seconds that it took.

    Args:
        total: number of documents, None if nobody knows.

    Attributes:
        counts: images and texts embedded so far.
        seconds: spent on each.
    """

    def __init__(self, total: int | None) -> None:
        self.progress = counting_bar(transient=False)
        self.task = self.progress.add_task("documents", total=total, rate="")
        self.counts = {"images": 0, "texts": 0}
        self.seconds = {"images": 0.0, "texts": 0.0}

    def __enter__(self) -> Throughput:
        if self.progress.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.progress.live.is_started:
            self.progress.stop()

    def advance(self, documents: int) -> None:
        """Count documents that are done with, also those that an earlier run embedded."""
        self.progress.update(self.task, advance=documents, rate=str(self))

    def say(self, line: str) -> None:
        """Print a line above the bar, or where there is no bar."""
        self.progress.console.print(line, highlight=False, soft_wrap=True)

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add the time inside to `seconds[kind]`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[kind] += time.perf_counter() - start

    def rates(self) -> dict[str, float]:
        """Images and texts per second, of what this process embedded."""
        return {kind: round(n / self.seconds[kind], 2) for kind, n in self.counts.items() if n and self.seconds[kind]}

    def __str__(self) -> str:
        """The rates in words."""
        return in_words(self.rates())
