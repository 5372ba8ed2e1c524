"""The files of a unit: parquet with all its rows, a tar with the accepted ones, and last the record that it is done.

A folder holds `parquet/UNIT.parquet`, `webdataset/UNIT.tar` and `records/UNIT.json`. Files are written beside their
place, flushed and renamed, so that each is whole or absent; the same rows give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from multimodal_zoo.captions.rows import STATUSES, FusedRow
from multimodal_zoo.captions.sources import Unit
from multimodal_zoo.captions.unit_tables import UnitTable
from multimodal_zoo.captions.unit_tars import UnitTar
from multimodal_zoo.files import atomic_file, read_record, reading, write_bytes, write_text

#: Formats by name: their suffix; each has a folder of its name.
FORMATS = {"parquet": ".parquet", "webdataset": ".tar"}
RECORDS = "records"
#: Rows that are taken at a time: their pictures are in memory.
CHUNK = 1024


class Counts(Protocol):
    """What adds up over the rows of a unit, as `captions.statistics`."""

    def add(self, row: FusedRow) -> None:
        """Count a row."""
        ...

    def as_json(self) -> dict[str, Any]:
        """The counts as plain JSON."""
        ...


@dataclass(frozen=True)
class UnitRecord:
    """What says that a unit is done; equal for equal rows, so that whole folders can be compared.

    Attributes:
        name: of the unit.
        file: name of the source's file.
        start: number of its first row in that file.
        stop: number of the row behind its last one.
        rows: rows written.
        statuses: how many rows have each status.
        doubles: rows whose key an earlier row of the unit has; they are written like all others.
        files: SHA-256 of each file by its path in the folder.
        sizes: bytes of each file.
        statistics: the counts of its rows, if they were asked for.
        rounds: how often its failed rows were tried again.
        problem: why nothing could be read; such a unit has no files and is not done.
    """

    name: str
    file: str
    start: int
    stop: int
    rows: int
    statuses: dict[str, int]
    doubles: int = 0
    files: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    statistics: dict[str, Any] | None = None
    rounds: int = 0
    problem: str | None = None


def write_unit(
    folder: str | Path,
    unit: Unit,
    rows: Iterable[FusedRow],
    formats: Sequence[str] = ("parquet", "webdataset"),
    *,
    kinds: Mapping[str, str] | None = None,
    statistics: Counts | None = None,
    rounds: int = 0,
    still: Callable[[], None] = lambda: None,
) -> UnitRecord:
    """Write the rows of a unit, and last its record.

    What a killed writer left of the unit is replaced. While a finished unit is written again it is not done. Two that
    write one unit at once may leave files of both: `is_whole` tells.

    Args:
        folder: of the run's output.
        unit: which unit.
        rows: its results, taken a few at a time.
        formats: "parquet", and "webdataset" for tars of the accepted rows with their pictures.
        kinds: of the columns that are carried along, the source's `kinds()`; None: inferred from this unit's rows.
        statistics: counts to add the rows to; they stand in the record.
        rounds: for the record.
        still: called when all is ready, just before anything is replaced; an error of it leaves the unit as it was.

    Raises:
        ValueError: formats without parquet, which keeps rejected and failed rows, or rows that are not the unit's.
        OSError: a full disk or an unwritable folder; the unit is not done.
    """
    check_formats(formats)
    table, hashes, sizes = UnitTable(kinds), {}, {}
    with ExitStack() as stack:
        tar = None
        if "webdataset" in formats:
            temporary = stack.enter_context(atomic_file(_path(folder, "webdataset", unit.name)))
            tar = UnitTar(temporary, unit.name)
            stack.callback(tar.file.close)
        _collect(rows, table, tar, statistics)
        if len(table.extra) != unit.rows:
            came = len(table.extra)
            raise ValueError(f"unit {unit.name} has {unit.rows} rows, {came} results came; none may be lost or added")
        if tar is not None:
            file = _key("webdataset", unit.name)
            hashes[file], sizes[file] = tar.close(), tar.size
        content = parquet_bytes(table.arrow())
        file = _key("parquet", unit.name)
        hashes[file], sizes[file] = hashlib.sha256(content).hexdigest(), len(content)
        still()
        undo(folder, unit.name)
    write_bytes(_path(folder, "parquet", unit.name), content)
    counts = None if statistics is None else statistics.as_json()
    return _write_record(
        folder, replace(_record(unit, table), files=hashes, sizes=sizes, statistics=counts, rounds=rounds)
    )


def _record(unit: Unit, table: UnitTable) -> UnitRecord:
    """What the rows of a unit say of it."""
    return UnitRecord(
        name=unit.name,
        file=Path(unit.file).name,
        start=unit.start,
        stop=unit.stop,
        rows=unit.rows,
        statuses={status: table.own["status"].count(status) for status in STATUSES},
        doubles=unit.rows - len(set(table.own["key"])),
    )


def _collect(rows: Iterable[FusedRow], table: UnitTable, tar: UnitTar | None, statistics: Counts | None) -> None:
    """Take the rows, a chunk of them in memory with their pictures at a time."""
    taken = iter(rows)
    while chunk := list(islice(taken, CHUNK)):
        table.add(chunk)
        if tar is not None:
            tar.add(chunk)
        if statistics is not None:
            for row in chunk:
                statistics.add(row)


def write_broken_unit(folder: str | Path, unit: Unit, problem: str) -> UnitRecord:
    """Record that a unit could not be read; it is not done, so that a later run tries again."""
    none = dict.fromkeys(STATUSES, 0)
    record = UnitRecord(unit.name, Path(unit.file).name, unit.start, unit.stop, 0, none, problem=problem)
    return _write_record(folder, record)


def parquet_bytes(table: Any) -> bytes:
    """A table as a parquet file: Zstandard, dictionaries for what repeats, always the same bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", compression_level=1, use_dictionary=["status", "reason"])
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_unit_record(folder: str | Path, name: str) -> UnitRecord:
    """The record of a unit as it stands, whatever became of the files.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path, said = _record_path(folder, name), ("record of a unit", "delete it, and the unit is written again")
    with reading(path, *said):
        record = UnitRecord(**read_record(path, *said))
        for held in (record.statuses, record.files, record.sizes):
            if not isinstance(held, dict):
                raise TypeError(f"expected an object, found {type(held).__name__}")
        return record


def record_of(folder: str | Path, name: str) -> UnitRecord | None:
    """The record of a unit, None unless all its files are there in full; hashes are left to `verify`."""
    try:
        record = read_unit_record(folder, name)
        whole = all((Path(folder) / file).stat().st_size == size for file, size in record.sizes.items())
    except (FileNotFoundError, ValueError):  # absent, or not a record: the unit is written anew
        return None
    return record if whole else None


def is_done(folder: str | Path, unit: Unit) -> bool:
    """Whether a unit is written in full."""
    record = record_of(folder, unit.name)
    return record is not None and record.problem is None


def undo(folder: str | Path, name: str) -> None:
    """Let a unit, or the note that it could not be read, be no longer done."""
    _record_path(folder, name).unlink(missing_ok=True)


def note_of(folder: str | Path, name: str) -> tuple[int, int] | None:
    """What tells a unit's record from one that is written later under the same name; None if there is none."""
    try:
        found = _record_path(folder, name).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def finished(folder: str | Path) -> set[str]:
    """Names of all units that have a record, broken ones among them; nothing is opened."""
    try:
        with os.scandir(Path(folder) / RECORDS) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return set()
    return {name[: -len(".json")] for name in names if name.endswith(".json") and not name.startswith(".")}


def records(folder: str | Path) -> Iterator[UnitRecord]:
    """The records of all units whose files are there, in the order of their names, broken ones among them."""
    for name in sorted(finished(folder)):
        record = record_of(folder, name)
        if record is not None:
            yield record


def check_formats(formats: Sequence[str]) -> None:
    """Make sure that the formats can be written.

    Raises:
        ValueError: an unknown one, or none that keeps all rows.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or "parquet" not in formats:
        raise ValueError(
            f"formats is {list(formats)}; it must have parquet, where rejected and failed rows are kept, and may have "
            "webdataset"
        )


def _key(format_: str, name: str) -> str:
    return f"{format_}/{name}{FORMATS[format_]}"


def _path(folder: str | Path, format_: str, name: str) -> Path:
    return Path(folder) / _key(format_, name)


def _record_path(folder: str | Path, name: str) -> Path:
    return Path(folder) / RECORDS / f"{name}.json"


def _write_record(folder: str | Path, record: UnitRecord) -> UnitRecord:
    write_text(_record_path(folder, record.name), json.dumps(asdict(record), ensure_ascii=False, indent=1) + "\n")
    return record
