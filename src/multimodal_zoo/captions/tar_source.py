"""Captions in tars as img2dataset writes them: picture, .txt and .json of each sample under one name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from multimodal_zoo.captions.columns import SPELLINGS, Columns, recognise
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.sources import BrokenFileError, Cut, Index, Source, Unit
from multimodal_zoo.captions.tar_walk import ADVICE, TEXT, TarWalk, stated_rows
from multimodal_zoo.captions.unit_tables import infer_kinds
from multimodal_zoo.registry import CAPTIONS

#: Samples of the first tar that tell its columns and their kinds.
SAMPLED = 256


@CAPTIONS.register_module(name="caption_tars")
class TarSource(Source):
    """Rows of local webdataset tars.

    A sample's columns are the keys of its `json`, and `txt`. Members are read in memory and never written anywhere;
    links, devices, folders and names that lead out of their folder are left out. Headers are walked through once to
    cut tars into units, unless img2dataset's `_stats.json` says that a tar fits into one.

    Args:
        files: paths, in order.
        columns: which key is what.
        rules: what a row must be.
        broken_files: "error", or "report": the broken rest of a tar becomes a unit with a problem.

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
        super().__init__("tars", files, columns or Columns(), rules or RowRules(), broken_files)
        self._seen: list[dict[str, Any]] = []

    def kinds(self) -> dict[str, str]:
        """From the first samples; values of later ones that do not fit go to the column `more`."""
        others = set(self.columns.others(self._keys())) - ({TEXT} if repeats(self.columns) else set())
        samples = ({SPELLINGS.get(k, k): v for k, v in sample.items() if k in others} for sample in self._samples())
        return infer_kinds(samples)

    def _keys(self) -> list[str]:
        return list(dict.fromkeys(key for sample in self._samples() for key in sample))

    def _samples(self) -> list[dict[str, Any]]:
        """The columns of the first samples of the first tar that has any, without their pictures' bytes."""
        for file in () if self._seen else self.files:
            try:
                with TarWalk(file) as walk:
                    for sample in islice(walk.samples(), SAMPLED):
                        self._seen.append(walk.values(sample, with_image=False)[0])
            except BrokenFileError:
                if self.broken_files == "error":
                    raise
            if self._seen:
                break
        return self._seen

    def _recognise(self) -> Columns:
        return recognise(self.asked, self._keys(), self.files[0], self.rules.required)

    def _index(self, file: str, rows_per_unit: int) -> Index:
        rows = stated_rows(file) if self.broken_files == "error" else None  # to report, all headers must be seen
        if rows is not None and 0 < rows <= rows_per_unit:
            return Index([Cut(0, 0)], rows)
        cuts, rows = [], 0
        try:
            with TarWalk(file, eager=False) as walk:
                for sample in walk.samples():
                    if rows % rows_per_unit == 0:
                        cuts.append(Cut(rows, sample.offset))
                    rows += 1
        except BrokenFileError as error:
            return Index(cuts, rows, str(error))
        return Index(cuts, rows)

    def _open(self, unit: Unit) -> TarCursor:
        return TarCursor(unit, self._names[unit.file], self.columns, self.rules)


class TarCursor:
    """Goes through one tar sample by sample.

    Args:
        unit: where to begin.
        name: of the tar in the source, for keys.
        columns: which key is what.
        rules: what a row must be.
    """

    def __init__(self, unit: Unit, name: str, columns: Columns, rules: RowRules) -> None:
        self.name, self.columns, self.rules, self.file = name, columns, rules, unit.file
        self.row = unit.start if unit.offset else 0
        self.walk = TarWalk(unit.file, unit.offset)
        self._samples = self.walk.samples()
        stated = stated_rows(unit.file)
        self._repeats = repeats(columns)
        self._whole = stated if unit.start == 0 and stated == unit.stop else None

    def skip(self, count: int) -> None:
        """Leave samples out; only their headers are read."""
        self.walk.eager = False
        for _ in islice(self._samples, count):
            self.row += 1
        self.walk.eager = True

    def take(self, count: int) -> Iterator[CaptionRow]:
        """Up to `count` rows."""
        for sample in islice(self._samples, count):
            self.row += 1
            values, problem = self.walk.values(sample, with_image=bool(self.columns.image))
            place = f"{self.name}/{sample.key}"
            if self._repeats:
                values.pop(TEXT, None)
            row = self.rules.row(values, self.columns, place, place)
            if problem is not None:
                row = replace(row, problem=problem)
            yield row
        if self.row == self._whole and next(self._samples, None) is not None:
            raise BrokenFileError(f"{self.file} has more than the {self._whole} samples of its _stats.json; {ADVICE}")

    def close(self) -> None:
        """Close the tar."""
        self.walk.close()


def repeats(columns: Columns) -> bool:
    """Whether a sample's `.txt` only repeats its `.json`, as with img2dataset, and is not carried along."""
    return TEXT not in (columns.raw, *columns.synthetic, *(columns.extra or ()))
