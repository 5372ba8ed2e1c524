"""What sources have in common whose files must be walked through: records behind each other, none known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol, TypeVar

from multimodal_zoo.captions.columns import SPELLINGS
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.sources import BrokenFileError, Cut, Index, Unit
from multimodal_zoo.captions.unit_tables import infer_kinds

#: Records of the first file that tell a source's columns and their kinds.
SAMPLED = 256


class Placed(Protocol):
    """A record that knows where in its file it begins."""

    @property
    def offset(self) -> int:
        """The byte."""
        ...


R = TypeVar("R", bound=Placed)


class Walk(Protocol[R]):
    """An open file of records, from one of them on."""

    #: Whether contents are read as their records are passed; those that come anyway do not ask.
    eager: bool

    def records(self) -> Iterator[R]:
        """The records, in order.

        Raises:
            BrokenFileError: the file is damaged or cut off.
        """
        ...

    def values(self, record: R) -> tuple[dict[str, Any] | None, str | None]:
        """What a record holds by column, None if that cannot be told; and what is wrong with it."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class WalkingCursor:
    """Goes through one file record by record.

    Args:
        walk: the file, opened at the unit's offset.
        unit: where to begin.
        row: makes a row of a record and its number.
    """

    def __init__(self, walk: Walk[R], unit: Unit, row: Callable[[R, int], CaptionRow]) -> None:
        self.walk, self.make = walk, row
        self.row = unit.start if unit.offset else 0
        self._records = walk.records()

    def skip(self, count: int) -> None:
        """Leave records out; as little of them is read as the kind of file allows."""
        self.walk.eager = False
        for _ in islice(self._records, count):
            self.row += 1
        self.walk.eager = True

    def take(self, count: int) -> Iterator[CaptionRow]:
        """Up to `count` rows."""
        for record in islice(self._records, count):
            self.row += 1
            yield self.make(record, self.row - 1)

    def close(self) -> None:
        """Close the file."""
        self.walk.close()


def index_of(walk: Walk[Any], rows_per_unit: int) -> Index:
    """Where the units of a file start, by walking through all of it."""
    cuts: list[Cut] = []
    rows = 0
    try:
        for record in walk.records():
            if rows % rows_per_unit == 0:
                cuts.append(Cut(rows, record.offset))
            rows += 1
    except BrokenFileError as error:
        return Index(cuts, rows, str(error))
    return Index(cuts, rows)


def first_values(files: Sequence[str], opened: Callable[[str], Walk[Any]], broken_files: str) -> list[dict[str, Any]]:
    """What the first records hold, of the first file that has any; files that cannot be read are passed by if asked to.

    Args:
        files: of the source.
        opened: walks through one of them.
        broken_files: see `Source`.

    Raises:
        BrokenFileError: a file cannot be read, and `broken_files` is "error".
    """
    found: list[dict[str, Any]] = []
    for file in files:
        try:
            walk = opened(file)
            try:
                for record in islice(walk.records(), SAMPLED):
                    values, _ = walk.values(record)
                    found += [] if values is None else [values]
            finally:
                walk.close()
        except BrokenFileError:
            if broken_files == "error":
                raise
        if found:
            break
    return found


def names_of(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """All columns that some records have, in the order in which they turn up."""
    return list(dict.fromkeys(name for sample in samples for name in sample))


def kinds_of(samples: Sequence[Mapping[str, Any]], carried: Sequence[str]) -> dict[str, str]:
    """The kinds of the columns that are carried along; values of later records that do not fit go to `more`."""
    wanted = set(carried)
    return infer_kinds(
        {SPELLINGS.get(name, name): value for name, value in sample.items() if name in wanted} for sample in samples
    )
