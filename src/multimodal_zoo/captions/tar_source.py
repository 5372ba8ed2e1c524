"""Captions in tars as img2dataset writes them: picture, .txt and .json of each sample under one name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from multimodal_zoo.captions.columns import Columns, recognise
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.sources import ADVICE, BrokenFileError, Cut, Index, Source, Unit
from multimodal_zoo.captions.tar_walk import TEXT, Sample, TarWalk, stated_rows
from multimodal_zoo.captions.walking import WalkingCursor, first_values, index_of, kinds_of, names_of
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="caption_tars")
class TarSource(Source):
    """Rows of local webdataset tars.

    A sample's columns are the keys of its `json`, and `txt`. Members are read in memory and never written anywhere;
    links, devices, folders and names that lead out of their folder are left out. Headers are walked through once to
    cut tars into units, unless img2dataset's `_stats.json` says that a tar fits into one. Arguments are those of
    `Source`.
    """

    kind = "tars"

    def kinds(self) -> dict[str, str]:
        """From the first samples; values of later ones that do not fit go to the column `more`."""
        carried = self.columns.others(names_of(self._samples))
        return kinds_of(self._samples, [name for name in carried if name != TEXT or not self._repeats])

    def read(self, unit: Unit) -> Iterator[CaptionRow]:
        """See `Source`.

        Raises:
            BrokenFileError: as there, or the tar has more samples than its `_stats.json` says.
        """
        yield from super().read(unit)
        stated = self._stated(unit.file) if unit.start == 0 else None
        if stated == unit.stop and self._cursor is not None and any(True for _ in self._cursor[1].take(1)):
            self.close()
            raise BrokenFileError(f"{unit.file} has more than the {stated} samples of its _stats.json; {ADVICE}")

    @cached_property
    def _samples(self) -> list[dict[str, Any]]:
        """The columns of the first samples of the first tar that has any, without their pictures' bytes."""
        return first_values(self.files, partial(TarWalk, with_images=False), self.broken_files)

    @cached_property
    def _repeats(self) -> bool:
        """Whether a sample's `.txt` only repeats its `.json`, as with img2dataset, and is not carried along."""
        columns = self.columns
        return TEXT not in (columns.raw, *columns.synthetic, *(columns.extra or ()))

    def _recognise(self) -> Columns:
        return recognise(self.asked, names_of(self._samples), self.files[0], self.rules.required)

    def _index(self, file: str, rows_per_unit: int) -> Index:
        rows = self._stated(file)
        if rows is not None and 0 < rows <= rows_per_unit:
            return Index([Cut(0, 0)], rows)
        with closing(TarWalk(file, eager=False)) as walk:
            return index_of(walk, rows_per_unit)

    def _stated(self, file: str) -> int | None:
        """Samples of a tar as noted beside it; None where broken tars are reported, for which all headers are seen."""
        return stated_rows(file) if self.broken_files == "error" else None

    def _open(self, unit: Unit) -> WalkingCursor:
        walk = TarWalk(unit.file, unit.offset, with_images=bool(self.columns.image))
        return WalkingCursor(walk, unit, partial(self._row, self._names[unit.file], walk))

    def _row(self, name: str, walk: TarWalk, sample: Sample, number: int) -> CaptionRow:
        del number  # samples have names
        values, problem = walk.values(sample)
        if self._repeats:
            values.pop(TEXT, None)
        place = f"{name}/{sample.key}"
        row = self.rules.row(values, self.columns, place, place)
        return row if problem is None else replace(row, problem=problem)
