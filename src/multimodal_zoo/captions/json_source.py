"""Captions in JSON: an object a line (.jsonl, .ndjson, also gzipped) or one list of objects (.json)."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from multimodal_zoo.captions.columns import Columns, recognise
from multimodal_zoo.captions.json_records import JsonWalk, Record, parse
from multimodal_zoo.captions.rows import CaptionRow, key_of
from multimodal_zoo.captions.sources import BrokenFileError, Index, Source, Unit
from multimodal_zoo.captions.walking import SAMPLED, WalkingCursor, first_values, index_of, kinds_of, names_of
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="caption_json")
class JsonSource(Source):
    """Rows of JSON files; CapsFusion's example file is a list with the keys laion_2b, laion_coco, capsfuion_official.

    Lines are counted and lists are walked through once to cut them into units: JSON has no metadata. Arguments are
    those of `Source`.
    """

    kind = "json"

    def kinds(self) -> dict[str, str]:
        """From the first records; values of later ones that do not fit go to the column `more`."""
        return kinds_of(self._samples, self.columns.others(names_of(self._samples)))

    @cached_property
    def _samples(self) -> list[dict[str, Any]]:
        """The first objects of the first file that has any."""
        found = first_values(self.files, JsonWalk, self.broken_files)
        if not found:
            raise BrokenFileError(
                f"{self.files[0]}: none of the first {SAMPLED} records is a JSON object; source.path takes an object a "
                "line, or a list of objects"
            )
        return found

    def _recognise(self) -> Columns:
        if self.asked.image:
            raise ValueError(f"source.image is {self.asked.image!r}; JSON holds no pictures, tars and parquet do")
        columns = recognise(self.asked, names_of(self._samples), self.files[0], self.rules.required)
        return replace(columns, image=None)  # a path or an address: carried along

    def _index(self, file: str, rows_per_unit: int) -> Index:
        with closing(JsonWalk(file)) as walk:
            return index_of(walk, rows_per_unit)

    def _open(self, unit: Unit) -> WalkingCursor:
        row = partial(self._row, self._names[unit.file], self.columns)
        return WalkingCursor(JsonWalk(unit.file, unit.offset), unit, row)

    def _row(self, name: str, columns: Columns, record: Record, number: int) -> CaptionRow:
        place = f"{name}:{number}"
        values, problem = parse(record.text)
        if values is None:
            raw = record.text.rstrip(b"\r\n").decode("utf-8", "replace")[: self.rules.longest]
            return CaptionRow(key_of("", "", place), "", extra={"record": raw}, problem=problem)
        return self.rules.row(values, columns, place)
