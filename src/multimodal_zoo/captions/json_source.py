"""Captions in JSON: an object a line (.jsonl, .ndjson, also gzipped) or one list of objects (.json)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from multimodal_zoo.captions.columns import SPELLINGS, Columns, recognise
from multimodal_zoo.captions.json_records import open_json, parse, records_in
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.rows import CaptionRow, key_of
from multimodal_zoo.captions.sources import BrokenFileError, Cut, Index, Source, Unit
from multimodal_zoo.captions.unit_tables import infer_kinds
from multimodal_zoo.registry import CAPTIONS

#: Records of the first file that tell its columns and their kinds.
SAMPLED = 256


@CAPTIONS.register_module(name="caption_json")
class JsonSource(Source):
    """Rows of JSON files; CapsFusion's example file is a list with the keys laion_2b, laion_coco, capsfuion_official.

    Lines are counted and lists are walked through once to cut them into units: JSON has no metadata.

    Args:
        files: paths, in order.
        columns: which key is what.
        rules: what a row must be.
        broken_files: "error", or "report": the broken rest of a file becomes a unit with a problem.

    Raises:
        ValueError: no file, an unknown word.
    """

    def __init__(
        self,
        files: Sequence[str],
        columns: Columns | None = None,
        rules: RowRules | None = None,
        broken_files: str = "error",
    ) -> None:
        super().__init__("json", files, columns or Columns(), rules or RowRules(), broken_files)
        self._seen: list[dict[str, Any]] = []

    def kinds(self) -> dict[str, str]:
        """From the first records; values of later ones that do not fit go to the column `more`."""
        others = set(self.columns.others(self._keys()))
        samples = ({SPELLINGS.get(k, k): v for k, v in sample.items() if k in others} for sample in self._samples())
        return infer_kinds(samples)

    def _keys(self) -> list[str]:
        return list(dict.fromkeys(key for sample in self._samples() for key in sample))

    def _samples(self) -> list[dict[str, Any]]:
        """The first objects of the first file that has any."""
        for file in () if self._seen else self.files:
            try:
                with open_json(file) as opened:
                    parsed = [parse(record.text)[0] for record in islice(records_in(opened, file), SAMPLED)]
            except BrokenFileError:
                if self.broken_files == "error":
                    raise
                continue
            self._seen = [one for one in parsed if one is not None]
            if self._seen:
                break
        if not self._seen:
            raise BrokenFileError(
                f"{self.files[0]}: none of the first {SAMPLED} records is a JSON object; source.path takes an object a "
                "line, or a list of objects"
            )
        return self._seen

    def _recognise(self) -> Columns:
        if self.asked.image:
            raise ValueError(f"source.image is {self.asked.image!r}; JSON holds no pictures, tars and parquet do")
        columns = recognise(self.asked, self._keys(), self.files[0], self.rules.required)
        return replace(columns, image=None)  # a path or an address: carried along

    def _index(self, file: str, rows_per_unit: int) -> Index:
        cuts, rows = [], 0
        with open_json(file) as opened:
            try:
                for record in records_in(opened, file):
                    if rows % rows_per_unit == 0:
                        cuts.append(Cut(rows, record.offset))
                    rows += 1
            except BrokenFileError as error:
                return Index(cuts, rows, str(error))
        return Index(cuts, rows)

    def _open(self, unit: Unit) -> JsonCursor:
        return JsonCursor(unit, self._names[unit.file], self.columns, self.rules)


class JsonCursor:
    """Goes through one file record by record.

    Args:
        unit: where to begin.
        name: of the file in the source, for keys.
        columns: which key is what.
        rules: what a row must be.
    """

    def __init__(self, unit: Unit, name: str, columns: Columns, rules: RowRules) -> None:
        self.name, self.columns, self.rules = name, columns, rules
        self.row = unit.start if unit.offset else 0
        self.opened = open_json(unit.file)
        self._records = records_in(self.opened, unit.file, unit.offset)

    def skip(self, count: int) -> None:
        """Leave records out; they are not parsed where lines tell them apart."""
        for _ in islice(self._records, count):
            self.row += 1

    def take(self, count: int) -> Iterator[CaptionRow]:
        """Up to `count` rows."""
        for record in islice(self._records, count):
            place = f"{self.name}:{self.row}"
            self.row += 1
            values, problem = parse(record.text)
            if values is None:
                raw = record.text.rstrip(b"\r\n").decode("utf-8", "replace")[: self.rules.longest]
                yield CaptionRow(key_of("", "", place), "", extra={"record": raw}, problem=problem)
            else:
                yield self.rules.row(values, self.columns, place)

    def close(self) -> None:
        """Close the file."""
        self.opened.close()
