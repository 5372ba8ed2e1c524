"""Tables of paths and captions as rows: CSV, TSV, JSON lines, parquet, and plain text of one caption a line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from multimodal_zoo.files import parsed, reading
from multimodal_zoo.packages import needed


def _delimited(delimiter: str) -> Any:
    """Rows that the csv module refuses, over-long cells say, become rows without any column."""

    def _read(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
        reader = csv.DictReader(lines, delimiter=delimiter)
        try:
            _ = reader.fieldnames
        except csv.Error as error:
            raise ValueError(f"the table's header cannot be read: {error}; check data.train.table") from error
        while True:
            try:
                row = next(reader, None)
            except csv.Error:
                row = {}
            if row is None:
                return
            yield row

    return _read


def _json_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Lines that are no JSON object, one cut off at the end say, become rows without any column."""
    for line in lines:
        if line.strip():
            try:
                row = parsed(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else {}


def _texts(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One text a line, in a column `text`."""
    return ({"text": line.strip()} for line in lines)


#: Readers of tables in text files by suffix.
TABLES = {
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".txt": _texts,
}
PARQUET = (".parquet", ".pq")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a table.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, a damaged one, or a header that cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES and suffix not in PARQUET:
        raise ValueError(f"data.train.table is {str(path)!r}; it must end in {', '.join([*TABLES, *PARQUET])}")
    if not path.is_file():
        raise FileNotFoundError(f"data.train.table: no file {str(path)!r}")
    with reading(path, f"whole {suffix} table, its texts in UTF-8"):
        if suffix in PARQUET:
            for batch in parquet_file(path).iter_batches():
                yield from batch.to_pylist()
            return
        with path.open(encoding="utf-8-sig", newline="") as lines:
            yield from TABLES[suffix](lines)


def parquet_file(path: Path) -> Any:
    """An opened parquet file.

    Raises:
        ModuleNotFoundError: pyarrow is missing.
        ValueError: the file is no parquet file.
    """
    parquet = needed("pyarrow.parquet", path.name, "eval")
    with reading(path, "parquet file"):
        return parquet.ParquetFile(path)
