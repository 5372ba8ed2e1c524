"""Captions in parquet files of any size and any columns: read in batches, worked on by column, never a whole file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain, repeat
from typing import Any

import numpy as np

from multimodal_zoo.captions.columns import SPELLINGS, Columns, recognise
from multimodal_zoo.captions.parquet_columns import (
    clean_texts,
    holds_pictures,
    holds_texts,
    kind_of,
    open_parquet,
    values_of,
)
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.rows import CaptionRow, key_of
from multimodal_zoo.captions.sources import ADVICE, BrokenFileError, Cut, Index, Source, Unit
from multimodal_zoo.registry import CAPTIONS

#: Rows that are decoded at a time, with and without pictures.
BATCH, BATCH_OF_PICTURES = 4096, 64
#: Rows that are judged at a time where something in the batch is not as it should be.
PIECE = 128


@CAPTIONS.register_module(name="caption_parquet")
class ParquetSource(Source):
    """Rows of parquet files, CapsFusion-120M's among them (columns image_url, laion_2b, laion_coco, capsfusion).

    Arguments are those of `Source`.
    """

    kind = "parquet"

    def kinds(self) -> dict[str, str]:
        """From the schema of the first file that can be read."""
        file, schema = self._readable
        columns = self._layout(file, schema)
        return {SPELLINGS.get(name, name): kind_of(schema.field(name).type) for name in columns.others(schema.names)}

    def describe(self) -> dict[str, Any]:
        """As other sources, with the number of rows."""
        rows = 0
        for file in self.files:
            try:
                with open_parquet(file) as opened:
                    rows += opened.metadata.num_rows
            except (BrokenFileError, OSError):
                continue
        return {**super().describe(), "rows": rows}

    def _recognise(self) -> Columns:
        return self._layout(*self._readable)

    @cached_property
    def _readable(self) -> tuple[str, Any]:
        """The first file that can be read, and its schema."""
        problem: BrokenFileError | None = None
        for file in self.files:
            try:
                with open_parquet(file) as opened:
                    return file, opened.schema_arrow
            except BrokenFileError as error:
                problem = problem or error
            except OSError as error:
                problem = problem or BrokenFileError(f"source.path: {file} cannot be read: {error}")
        raise problem or BrokenFileError("source.path: no file")

    def _layout(self, file: str, schema: Any) -> Columns:
        """The columns of one file, which may have other ones than the first."""
        columns = recognise(self.asked, schema.names, file, self.rules.required)
        if columns.image and not holds_pictures(schema.field(columns.image).type):
            if self.asked.image:
                raise ValueError(
                    f"source.image: column {columns.image!r} of {file} is {schema.field(columns.image).type}; pictures "
                    "are bytes, or a struct of bytes and path"
                )
            columns = replace(columns, image=None)  # a path or an address: carried along
        if columns.key and not self.asked.key and not holds_texts(schema.field(columns.key).type):
            columns = replace(columns, key=None)  # numbers, likely of each file anew
        for name in (columns.raw, *columns.synthetic, columns.url, columns.key):
            if name and not holds_texts(schema.field(name).type):
                raise ValueError(
                    f"source: column {name!r} of {file} is {schema.field(name).type}; captions, addresses and keys are "
                    "text, bytes or lists of text: name another with source.raw, source.synthetic, source.url or "
                    "source.key"
                )
        return columns

    def _index(self, file: str, rows_per_unit: int) -> Index:
        with open_parquet(file) as opened:
            rows = opened.metadata.num_rows
            self._layout(file, opened.schema_arrow)
        return Index([Cut(start, 0) for start in range(0, rows, rows_per_unit)], rows)

    def _open(self, unit: Unit) -> ParquetCursor:
        opened = open_parquet(unit.file)
        columns = self._layout(unit.file, opened.schema_arrow)
        return ParquetCursor(opened, unit.file, self._names[unit.file], columns, self.rules)


class ParquetCursor:
    """Goes through one file batch by batch; decodes each row group once, however many units it is read in.

    Args:
        opened: the parquet file.
        file: its path, for messages.
        name: its name in the source, for keys.
        columns: which column is what.
        rules: what a row must be.
    """

    def __init__(self, opened: Any, file: str, name: str, columns: Columns, rules: RowRules) -> None:
        self.opened, self.file, self.name, self.rules = opened, file, name, rules
        self.columns = columns
        self.extra = columns.others(opened.schema_arrow.names)
        self.row = 0
        self._batches: Iterator[Any] = iter(())
        self._rest: Any = None
        counts = [opened.metadata.row_group(number).num_rows for number in range(opened.metadata.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        self._decoded = -1
        self._by_column = not columns.image and not columns.key and len(columns.synthetic) == 1 and bool(columns.raw)

    def skip(self, count: int) -> None:
        """Leave rows out: row groups before the target are not decoded."""
        target = self.row + count
        group = int(np.searchsorted(self._starts, target, side="right")) - 1
        if group > self._group():
            self._start(group)
        while self.row < target and self._fill():
            self._cut(min(target - self.row, self._rest.num_rows))

    def take(self, count: int) -> Iterator[CaptionRow]:
        """Up to `count` rows."""
        if self._decoded < 0:
            self._start(0)
        while count > 0 and self._fill():
            first = self.row
            batch = self._cut(min(count, self._rest.num_rows))
            count -= batch.num_rows
            yield from self._rows(batch, first)

    def close(self) -> None:
        """Close the file."""
        self._batches, self._rest = iter(()), None
        self.opened.close()

    def _group(self) -> int:
        """The row group that the next row is in; -1 before anything was decoded."""
        return -1 if self._decoded < 0 else int(np.searchsorted(self._starts, self.row, side="right")) - 1

    def _start(self, group: int) -> None:
        """Decode from the beginning of a row group on."""
        size = BATCH_OF_PICTURES if self.columns.image else BATCH
        wanted = list(dict.fromkeys([*self.columns.named, *self.extra]))
        self._batches = chain.from_iterable(  # no batch spans two groups: damage to one does not reach the other
            self.opened.iter_batches(size, row_groups=[number], columns=wanted, use_threads=False)
            for number in range(group, self.opened.num_row_groups)
        )
        self.row, self._rest, self._decoded = int(self._starts[group]), None, group

    def _fill(self) -> bool:
        """Have a batch with rows at hand; False at the end of the file."""
        import pyarrow as pa

        while self._rest is None or self._rest.num_rows == 0:
            try:
                self._rest = next(self._batches, None)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise BrokenFileError(f"{self.file} is damaged behind row {self.row}: {error}; {ADVICE}") from error
            if self._rest is None:
                return False
        return True

    def _cut(self, count: int) -> Any:
        batch, self._rest = self._rest.slice(0, count), self._rest.slice(count)
        self.row += count
        return batch

    def _rows(self, batch: Any, first: int) -> Iterator[CaptionRow]:
        """The rows of a batch; by column where nothing is wrong with it, one by one where something is."""
        whole = self._whole(batch)
        if whole is None and batch.num_rows > PIECE and self._by_column:
            for start in range(0, batch.num_rows, PIECE):
                yield from self._rows(batch.slice(start, PIECE), first + start)
            return
        if whole is None:
            lists = {name: values_of(batch.column(name)) for name in batch.schema.names}
            for number, values in enumerate(zip(*lists.values(), strict=True), start=first):
                record = dict(zip(lists, values, strict=True))
                yield self.rules.row(record, self.columns, f"{self.name}:{number}")
            return
        raws, synthetic, urls, extras = whole
        for raw, one, url, extra in zip(raws, synthetic, urls, extras, strict=True):
            yield CaptionRow(key_of(raw, one, url), raw, (one,), None, extra)

    def _whole(self, batch: Any) -> tuple[list[str], list[str], Any, Any] | None:
        """Raw and synthetic captions, addresses and what is carried along, if all of the batch is as it should be."""
        columns = self.columns
        if not self._by_column:
            return None
        texts = [clean_texts(batch.column(name), self.rules.longest) for name in (columns.raw, columns.synthetic[0])]
        if texts[0] is None or texts[1] is None:
            return None
        urls: Any = repeat(None, batch.num_rows)
        if columns.url:
            urls = clean_texts(batch.column(columns.url), self.rules.longest)
            if urls is None:
                return None
        extras: Any = repeat({}, batch.num_rows)
        if self.extra:
            names = [SPELLINGS.get(name, name) for name in self.extra]
            values = [urls if name == columns.url else values_of(batch.column(name)) for name in self.extra]
            extras = [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
        return texts[0], texts[1], urls, extras
