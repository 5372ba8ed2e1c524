"""What is shown while captions are fused: a bar with rows per second and what became of them, or plain lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from multimodal_zoo.captions.job import Done
from multimodal_zoo.captions.rows import FAILED, FUSED, REJECTED
from multimodal_zoo.captions.stages import STAGES


class FusionProgress:
    """Counts rows of a run and shows them; plain lines where there is no terminal.

    Args:
        total: rows of the source.
        statuses: how many rows that were done before have which status.
        line_seconds: how often a plain line is printed; the first one after a tenth of it.
    """

    def __init__(self, total: int, statuses: Mapping[str, int], line_seconds: float = 30.0) -> None:
        self.total, self.line_seconds = total, line_seconds
        self.statuses = Counter(dict(statuses))
        self.before = self.statuses.total()
        self.seconds: Counter[str] = Counter()
        #: rows of this run: in whole units, and answered in units that are not whole
        self.rows = self.moving = 0
        self._start = time.monotonic()
        self._next = self._start + line_seconds / 10
        self._bar: Any = None

    def __enter__(self) -> FusionProgress:
        """Show the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = Console()
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=console,
                refresh_per_second=4,
            )
            self._bar.start()
            self._bar.add_task("", total=self.total, completed=self.before)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def add(self, done: Done) -> None:
        """Count a unit."""
        self.rows += done.rows
        self.moving = max(0, self.moving - done.rows)
        self.statuses.update(done.statuses)
        self.seconds.update(done.seconds)
        self._show()

    def answered(self, rows: int) -> None:
        """Count rows that an engine has answered and that are in no whole unit yet."""
        self.moving += rows
        self._show()

    @property
    def rate(self) -> float:
        """Rows of this run per second."""
        return (self.rows + self.moving) / max(time.monotonic() - self._start, 1e-9)

    @property
    def wall(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._start

    def line(self) -> str:
        """Rates, what became of the rows, and the share of each stage."""
        counts = ", ".join(f"{self.statuses[status]:,} {status}" for status in (FUSED, REJECTED, FAILED))
        whole = sum(self.seconds.values())
        parts = [f"{stage} {self.seconds[stage] / whole:.0%}" for stage in STAGES if whole and self.seconds[stage]]
        return f"{self.rate:,.1f} rows/s, {counts}" + (f" ({', '.join(parts)})" if parts else "")

    def stages(self) -> str:
        """Rows per second of each stage, as if a worker did nothing else."""
        rates = {stage: self.rows / self.seconds[stage] for stage in STAGES if self.seconds[stage]}
        told = [f"{stage} {rate:,.0f}" if rate >= 100 else f"{stage} {rate:.3g}" for stage, rate in rates.items()]
        return f"rows/s of a worker by stage: {', '.join(told)}" if told else "nothing was left to do"

    def _show(self) -> None:
        # answers that are asked again count twice until their unit is whole
        there = min(self.before + self.rows + self.moving, self.total)
        if self._bar is not None:
            self._bar.update(0, completed=there, description=self.line())
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + self.line_seconds
            left = (self.total - there) / self.rate if self.rate else 0.0
            print(f"{there:,} of {self.total:,} rows, {self.line()}, about {in_time(left)} left", flush=True)


def in_time(seconds: float) -> str:
    """Seconds in words: 40 s, 12 min, 3.5 h, 2.1 days."""
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86400:,.3g} days"
