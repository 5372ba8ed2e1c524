"""What a reader could not use: counted by reason, reported, never fatal one by one and never silent."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from multimodal_zoo.data.documents import Document

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
#: Examples kept for each reason.
EXAMPLES = 3


class UnusableError(Exception):
    """One sample cannot be used.

    Args:
        reason: short and countable, e.g. "broken image".
        key: the sample.
    """

    def __init__(self, reason: str, key: str) -> None:
        super().__init__(f"{reason}: {key}")
        self.reason = reason
        self.key = key

    def __reduce__(self) -> tuple[type[UnusableError], tuple[str, str]]:
        return UnusableError, (self.reason, self.key)


def inside(folder: Path, name: str, key: str) -> Path:
    """Where the file is that a record names, which must lie in its folder.

    Args:
        folder: resolved.
        name: as the record has it.
        key: the sample.

    Raises:
        UnusableError: a path outside of the folder, or one that no file can have.
    """
    try:
        path = (folder / name.lstrip("/")).resolve()
        path.exists()
    except (OSError, ValueError) as error:  # over-long, or with a zero byte
        raise UnusableError("path that no file can have", f"{key}: {name[:80]!r}") from error
    if not path.is_relative_to(folder):
        raise UnusableError("path outside the folder", key)
    return path


class NoUsableSamplesError(ValueError):
    """A data set gave nothing at all."""


class Skips:
    """Counts of unusable samples by reason, with a few examples of each; adds up across worker processes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    @classmethod
    def of(cls, counts: Mapping[str, int], examples: Mapping[str, Sequence[str]]) -> Skips:
        """What was counted elsewhere and kept as plain values."""
        skips = cls()
        skips.counts = Counter(counts)
        skips.examples = {reason: list(keys) for reason, keys in examples.items()}
        return skips

    def add(self, reason: str, key: str) -> None:
        """Count one sample."""
        self.counts[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < EXAMPLES:
            kept.append(key)

    def update(self, other: Skips) -> None:
        """Add what another process counted."""
        self.counts.update(other.counts)
        for reason, keys in other.examples.items():
            kept = self.examples.setdefault(reason, [])
            kept += keys[: EXAMPLES - len(kept)]

    def take(self) -> Skips:
        """What was counted so far, as an object of its own; this one starts again at nothing."""
        taken = Skips()
        taken.counts, taken.examples = self.counts, self.examples
        self.counts, self.examples = Counter(), {}
        return taken

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        """E.g. `3 skipped: broken image 2 (a.jpg, b.jpg), missing caption 1 (c.jpg)`."""
        parts = [f"{reason} {n} ({', '.join(self.examples[reason])})" for reason, n in self.counts.most_common()]
        return f"{len(self)} skipped" + (f": {', '.join(parts)}" if parts else "")

    def report(self, name: str) -> None:
        """Log the counts as a warning if there are any.

        Args:
            name: the data set, for the message.
        """
        if self.counts:
            logger.warning("%s: %s", name, self)

    def nothing_usable(self, name: str, key: str) -> NoUsableSamplesError:
        """The error for a data set that gave nothing.

        Args:
            name: the data set.
            key: the configuration key that names it.
        """
        what = str(self) if self.counts else "the sources are empty"
        return NoUsableSamplesError(f"{name} has no usable sample; {what}; check {key}")


class MapReader(Protocol):
    """A reader whose samples can be asked for by number; an unusable one raises `UnusableError`."""

    skips: Skips

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Document: ...


def usable(reader: MapReader, indices: Iterable[int] | None = None) -> Iterator[Document]:
    """The usable documents of a reader in order; the others are counted in `reader.skips`.

    Raises:
        NoUsableSamplesError: none was usable.
    """
    numbers = range(len(reader)) if indices is None else indices
    return made_of(
        numbers, reader.__getitem__, reader.skips, type(reader).__name__, "the paths and columns of the data"
    )


def made_of(
    items: Iterable[Item], make: Callable[[Item], Document], skips: Skips, name: str, key: str
) -> Iterator[Document]:
    """What can be made of some items, in order; what cannot is counted.

    Args:
        items: numbers or encoded samples.
        make: raises `UnusableError`.
        skips: counts.
        name: the data set.
        key: what to look at where nothing is usable.

    Raises:
        NoUsableSamplesError: none was usable.
    """
    found = False
    for item in items:
        try:
            document = make(item)
        except UnusableError as error:
            skips.add(error.reason, error.key)
            continue
        found = True
        yield document
    if not found:
        raise skips.nothing_usable(name, key)
