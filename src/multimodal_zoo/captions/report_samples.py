"""Rows for a report: a few of each kind from units all over a folder, with their pictures, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, TypeVar

from multimodal_zoo.captions.rows import FUSED
from multimodal_zoo.captions.sources import BrokenFileError
from multimodal_zoo.captions.statistics import TEXTS, distinct_trigrams
from multimodal_zoo.captions.tar_walk import TarWalk
from multimodal_zoo.captions.unit_files import UnitRecord
from multimodal_zoo.captions.unit_reading import unit_rows

logger = logging.getLogger(__name__)

#: Units that are looked into for each kind of row, rows that are read of each, and those whose words are counted.
UNITS, LOOKED_AT, COUNTED = 8, 4096, 1250
COLUMNS = ("key", "raw", "synthetic", "fused", "status", "reason", "flags", "attempts")
T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """One row as a report shows it.

    Attributes:
        key: of the row.
        raw: its web caption.
        synthetic: its synthetic captions.
        fused: the answer, also where it was rejected.
        status: what became of it.
        reason: why it was not accepted.
        flags: the filters that object.
        attempts: answers that were asked for.
        picture: the encoded picture, if it is in the folder.
    """

    key: str
    raw: str
    synthetic: tuple[str, ...]
    fused: str
    status: str
    reason: str
    flags: tuple[str, ...]
    attempts: int
    picture: bytes | None = None


@dataclass(frozen=True)
class Trigrams:
    """Runs of three words.

    Attributes:
        rows: accepted rows that were counted.
        counts: distinct and all runs of each of `TEXTS`.
    """

    rows: int
    counts: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Samples:
    """What a report shows of a folder's rows.

    Attributes:
        accepted: rows whose fused caption stands.
        refused: rejected and failed rows, each reason in turn.
        trigrams: of a larger sample of the accepted rows.
    """

    accepted: list[Sample] = field(default_factory=list)
    refused: list[Sample] = field(default_factory=list)
    trigrams: Trigrams = field(default_factory=lambda: Trigrams(0, dict.fromkeys(TEXTS, (0, 0))))


def draw_samples(folder: Path, records: Sequence[UnitRecord], rows_shown: int) -> Samples:
    """Rows from at most `UNITS` units for each kind, evenly over the folder; always the same ones.

    Args:
        folder: of a run's output.
        records: of its units.
        rows_shown: accepted rows, and rows of all other kinds, at most.
    """
    accepted, texts = [], dict[str, list[str]]((text, []) for text in TEXTS)
    units = spread([record for record in records if record.statuses.get(FUSED)], UNITS)
    for record, count in zip(units, quotas(rows_shown, len(units)), strict=True):
        rows = [(number, row) for number, row in _rows(folder, record) if row["status"] == FUSED]
        for _, row in spread(rows, COUNTED):
            texts["raw"].append(row["raw"])
            texts["fused"].append(row["fused"])
            texts["synthetic"].extend(row["synthetic"][:1])
        shown = spread(rows, count)
        pictures = tar_pictures(folder, record, [number for number, _ in shown])
        accepted += [_sample(row, pictures.get(number)) for number, row in shown]
    trigrams = Trigrams(len(texts["raw"]), {text: distinct_trigrams(found) for text, found in texts.items()})
    return Samples(accepted, _refused(folder, records, rows_shown), trigrams)


def _refused(folder: Path, records: Sequence[UnitRecord], rows_shown: int) -> list[Sample]:
    reasons: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in spread([one for one in records if one.rows > one.statuses.get(FUSED, 0)], UNITS):
        for _, row in _rows(folder, record):
            if row["status"] != FUSED:
                kept = reasons.setdefault((row["status"], row["reason"].partition(":")[0]), [])
                if len(kept) < rows_shown:
                    kept.append(row)
    turns = chain.from_iterable(zip_longest(*(reasons[kind] for kind in sorted(reasons))))
    return [_sample(row) for row in islice((row for row in turns if row is not None), rows_shown)]


def _rows(folder: Path, record: UnitRecord) -> Iterator[tuple[int, dict[str, Any]]]:
    return islice(enumerate(unit_rows(folder, record, COLUMNS)), LOOKED_AT)


def _sample(row: Mapping[str, Any], picture: bytes | None = None) -> Sample:
    return Sample(
        key=row["key"],
        raw=row["raw"],
        synthetic=tuple(row["synthetic"]),
        fused=row["fused"],
        status=row["status"],
        reason=row["reason"],
        flags=tuple(row["flags"]),
        attempts=row["attempts"],
        picture=picture,
    )


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items at even distances, in order."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def quotas(total: int, parts: int) -> list[int]:
    """Whole numbers that add up to a total, as equal as they can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]


def tar_pictures(folder: Path, record: UnitRecord, numbers: Iterable[int]) -> dict[int, bytes]:
    """Pictures of some rows of a unit, from its tar; none where it was not written, is damaged, or rows have none.

    Only the headers up to the last row are read.
    """
    wanted = {f"{record.name}-{number:06d}": number for number in numbers}
    file = next((name for name in record.files if name.endswith(".tar")), None)
    found: dict[int, bytes] = {}
    if file is None or not wanted:
        return found
    last = max(wanted)
    try:
        with closing(TarWalk(str(folder / file), eager=False)) as walk:
            for sample in walk.records():
                for suffix, (member, _) in sample.members.items() if sample.key in wanted else ():
                    if suffix not in ("txt", "json"):  # also a picture of a kind that is not known by its first bytes
                        found[wanted[sample.key]] = walk.content(member)
                if sample.key >= last:
                    break
    except BrokenFileError as error:
        logger.warning("no pictures in the report of unit %s: %s", record.name, error)
    return found
