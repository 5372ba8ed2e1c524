"""Reading the units of a folder back: for reports, for training, and to show that no key is there twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_zoo.captions.parquet_columns import open_parquet
from multimodal_zoo.captions.rows import FAILED, CaptionRow, FusedRow
from multimodal_zoo.captions.unit_files import UnitRecord, records
from multimodal_zoo.captions.unit_tables import MORE, OWN

#: Rows that are decoded at a time.
BATCH = 4096


def read_units(
    folder: str | Path, columns: Sequence[str] | None = None, statuses: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of all finished units, in the order of the units' names.

    Args:
        folder: of a run's output.
        columns: which columns; None: all. The name of the unit stands in `unit` always.
        statuses: only rows of these; None: all.

    Yields:
        rows by column.

    Raises:
        ValueError: a column that the files do not have.
    """
    for record in records(folder):
        if record.problem is None:
            for row in unit_rows(folder, record, columns, statuses):
                yield {"unit": record.name, **row}


def unit_rows(
    folder: str | Path,
    record: UnitRecord,
    columns: Sequence[str] | None = None,
    statuses: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of one unit by column; see `read_units`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with open_parquet(str(parquet_of(folder, record))) as opened:
        names = opened.schema_arrow.names
        wanted = list(names if columns is None else columns)
        for name in wanted:
            if name not in names:
                raise ValueError(f"columns: units of {folder} have no column {name!r}; they have {', '.join(names)}")
        read = list(dict.fromkeys([*wanted, "status"]))
        for batch in opened.iter_batches(BATCH, columns=read, use_threads=False):
            if statuses is not None:
                batch = batch.filter(pc.is_in(batch.column("status"), pa.array(list(statuses), pa.string())))
            yield from batch.select(wanted).to_pylist()


def read_unit(folder: str | Path, record: UnitRecord) -> Iterator[FusedRow]:
    """The rows of one unit as they were written, without pictures; what is carried along has its column's name."""
    for values in unit_rows(folder, record):
        extra = {name: value for name, value in values.items() if name not in OWN and name != MORE}
        if values[MORE] is not None:
            extra.update(json.loads(values[MORE]))
        row = CaptionRow(values["key"], values["raw"], tuple(values["synthetic"]), extra=extra)
        if values["status"] == FAILED:
            row = CaptionRow(row.key, row.raw, row.synthetic, extra=extra, problem=values["reason"] or None)
        yield FusedRow(
            row,
            values["fused"],
            values["status"],
            values["reason"],
            tuple(values["flags"]),
            values["attempts"],
            values["words_cut"],
        )


def parquet_of(folder: str | Path, record: UnitRecord) -> Path:
    """The parquet file of a unit."""
    return Path(folder) / next(file for file in record.files if file.startswith("parquet/"))


def double_keys(folder: str | Path, memory: int = 1 << 28) -> list[str]:
    """Keys that stand in several rows of a folder, sorted.

    Keys are hashed to eight bytes and compared in as many passes over the key columns as memory asks for; only keys
    whose hashes meet are looked at whole.

    Args:
        folder: of a run's output.
        memory: bytes for the hashes of one pass.
    """
    done = [record for record in records(folder) if record.problem is None]
    rows = sum(record.rows for record in done)
    passes = max(1, -(-rows * 8 // memory))
    found: list[str] = []
    for number in range(passes):
        parts = [_hashes(folder, record, passes, number) for record in done]
        hashes = np.concatenate(parts or [np.zeros(0, np.uint64)])
        values, counts = np.unique(hashes, return_counts=True)
        met = set(values[counts > 1].tolist())
        if met:
            found += _doubles(folder, done, met)
    return sorted(found)


def _hashes(folder: str | Path, record: UnitRecord, passes: int, number: int) -> np.ndarray:
    """The hashes of a unit's keys that are looked at in one of the passes."""
    hashes = np.array([_hash(row["key"]) for row in unit_rows(folder, record, ["key"])], np.uint64)
    return hashes[hashes % passes == number]


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def _doubles(folder: str | Path, done: Sequence[UnitRecord], met: set[int]) -> list[str]:
    seen: dict[str, int] = {}
    for record in done:
        for row in unit_rows(folder, record, ["key"]):
            if _hash(row["key"]) in met:
                seen[row["key"]] = seen.get(row["key"], 0) + 1
    return [key for key, count in seen.items() if count > 1]
