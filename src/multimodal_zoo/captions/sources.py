"""Where captions come from: files cut into fixed units of work, and the rows of a unit."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple, Protocol

from multimodal_zoo.captions.columns import Columns
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.rows import CaptionRow

#: Bytes at both ends of a file that enter its fingerprint.
PROBED = 65_536
#: Characters of a file's name that a unit's name keeps: with rows and a hash it must fit into a tar's header.
NAMED = 56
BROKEN_FILES = ("error", "report")
#: What can be done about a file that cannot be read.
ADVICE = "replace it, take it out of source.path, or set source.broken_files=report"


class BrokenFileError(ValueError):
    """A file of a source that cannot be read, or not to its end."""


@dataclass(frozen=True)
class Unit:
    """A fixed piece of work: consecutive rows of one file. Plain values: it can be sent to other processes.

    Attributes:
        name: unique in the source, from the file's name and the rows; good as a file name, without a dot.
        file: path of the file.
        start: number of the first row.
        stop: number of the first row that is not part of it.
        offset: where the row `start` begins in the file, in bytes, for files that are read from there.
        problem: why it cannot be read; None for all units but those of broken files.
    """

    name: str
    file: str
    start: int
    stop: int
    offset: int = 0
    problem: str | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


class Cut(NamedTuple):
    """The start of a unit in a file."""

    row: int
    offset: int


class Index(NamedTuple):
    """What reading a file's metadata told: where units start, rows in all, what is wrong with the rest of the file."""

    cuts: list[Cut]
    rows: int
    problem: str | None = None


class Cursor(Protocol):
    """A place in an open file."""

    #: Number of the row that comes next.
    row: int

    def skip(self, count: int) -> None:
        """Leave rows out."""
        ...

    def take(self, count: int) -> Iterator[CaptionRow]:
        """Up to `count` rows from here on; fewer at the end of the file."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class Source(ABC):
    """Rows of captions in files of one kind.

    Args:
        files: their paths, in order.
        columns: which column is what; what is left out is recognised in the first file.
        rules: what a row must be.
        broken_files: what a file that cannot be read, or not to its end, is: an "error", or a unit of its own to
            "report" for the part that is lost.

    Raises:
        ValueError: no file, an unknown word in `broken_files`.
    """

    #: What the files are, for messages.
    kind: ClassVar[str]

    def __init__(
        self,
        files: Sequence[str],
        columns: Columns | None = None,
        rules: RowRules | None = None,
        broken_files: str = "error",
    ) -> None:
        if broken_files not in BROKEN_FILES:
            raise ValueError(f"source.broken_files is {broken_files!r}; it must be one of {', '.join(BROKEN_FILES)}")
        if not files:
            raise ValueError(f"source.path: no {self.kind}")
        self.files, self.broken_files = [str(file) for file in files], broken_files
        self.asked, self.rules = columns or Columns(), rules or RowRules()
        self._names = relative_names(self.files)
        self._stems = unit_stems(self._names)
        self._cursor: tuple[str, Cursor] | None = None

    @cached_property
    def columns(self) -> Columns:
        """Which column is what, as recognised in the first file that can be read."""
        return self._recognise()

    def units(self, rows_per_unit: int) -> list[Unit]:
        """The source in pieces of at most so many rows, in order; the same for the same files.

        Raises:
            BrokenFileError: a file that cannot be read, unless such files are reported: then each has a unit with a
                `problem` for the part that is lost.
            ValueError: no row allowed.
        """
        if rows_per_unit < 1:
            raise ValueError(f"rows_per_unit is {rows_per_unit}; a unit has at least one row")
        found = []
        for file in self.files:
            try:
                index = self._index(file, rows_per_unit)
            except BrokenFileError as error:
                index = Index([], 0, str(error))
            except OSError as error:
                index = Index([], 0, f"source.path: {file} cannot be read: {error}")
            if index.problem and self.broken_files == "error":
                raise BrokenFileError(index.problem)
            stops = [*(cut.row for cut in index.cuts[1:]), index.rows]  # one too many where there is no row
            for cut, stop in zip(index.cuts, stops, strict=False):
                found.append(Unit(self._unit_name(file, cut.row, f"{stop:09d}"), file, cut.row, stop, cut.offset))
            if index.problem:
                name = self._unit_name(file, index.rows, "broken")
                found.append(Unit(name, file, index.rows, index.rows, 0, index.problem))
        return found

    def read(self, unit: Unit) -> Iterator[CaptionRow]:
        """The rows of a unit, in order, one at a time.

        A unit that follows the one before in the same file is read on from there.

        Raises:
            BrokenFileError: the file cannot be read, or has fewer rows than it had.
        """
        if unit.problem:
            raise BrokenFileError(unit.problem)
        kept, self._cursor = self._cursor, None
        if kept is not None and kept[0] == unit.file and kept[1].row <= unit.start:
            cursor = kept[1]
        else:
            if kept is not None:
                kept[1].close()
            cursor = self._open(unit)
        cursor.skip(unit.start - cursor.row)
        count = 0
        try:
            for row in cursor.take(unit.rows):
                count += 1
                yield row
        except BaseException:  # the reader left early, or the file is broken: its place in the file is of no use
            cursor.close()
            raise
        if count < unit.rows:
            cursor.close()
            raise BrokenFileError(f"{unit.file} ended after row {cursor.row}; unit {unit.name} goes to row {unit.stop}")
        self._cursor = (unit.file, cursor)

    def close(self) -> None:
        """Close the file that is open, if one is; reading opens it again."""
        if self._cursor is not None:
            self._cursor[1].close()
        self._cursor = None

    def describe(self) -> dict[str, Any]:
        """What the source is, as plain JSON: equal for equal data; nothing but both ends of each file is read."""
        return {
            "kind": self.kind,
            "files": [{"name": self._names[file], **fingerprint(file)} for file in self.files],
            "rules": self.rules.describe(),
        }

    @abstractmethod
    def kinds(self) -> dict[str, str]:
        """The kinds of the columns that are carried along, see `unit_tables.KINDS`; the same for all units."""

    @abstractmethod
    def _recognise(self) -> Columns:
        """Which column is what."""

    @abstractmethod
    def _index(self, file: str, rows_per_unit: int) -> Index:
        """Where units start. Raises BrokenFileError where nothing of the file can be read."""

    @abstractmethod
    def _open(self, unit: Unit) -> Cursor:
        """A cursor at the unit's start or before it."""

    def _unit_name(self, file: str, start: int, end: str) -> str:
        return f"{self._stems[file]}-{start:09d}-{end}"


def relative_names(files: Sequence[str]) -> dict[str, str]:
    """Names of files by path, unique and short: relative to the folder that they have in common."""
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return {file: Path(os.path.relpath(os.path.abspath(file), folder)).as_posix() for file in files}


def unit_stems(names: Mapping[str, str]) -> dict[str, str]:
    """How units of each file are called: its name without suffix; a hash follows where that is not unique or plain."""
    stems = {file: PurePosixPath(name).name.split(".", 1)[0] for file, name in names.items()}
    shared = Counter(stems.values())
    for file, name in names.items():
        if shared[stems[file]] > 1 or not re.fullmatch(rf"[A-Za-z0-9_-]{{1,{NAMED}}}", stems[file]):
            kept = re.sub(r"[^A-Za-z0-9_-]+", "_", name.replace("/", "__"))[:NAMED]
            stems[file] = f"{kept}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
    return stems


def fingerprint(file: str) -> dict[str, Any]:
    """A file's size and a hash of it and of both ends: tells files of one name apart without reading them."""
    try:
        size = os.path.getsize(file)
        with open(file, "rb") as opened:
            content = opened.read(PROBED)
            opened.seek(max(len(content), size - PROBED))
            content += opened.read(PROBED)
    except OSError:  # `units` says what is wrong with it
        return {"bytes": None, "fingerprint": None}
    return {"bytes": size, "fingerprint": hashlib.sha256(content + str(size).encode()).hexdigest()[:16]}
