"""The report of a fusion run: report.html with samples, report.md with its tables, report.json with all its numbers.

Captions come from the web and answers from a model: nothing of them reaches the page unescaped.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from multimodal_zoo.captions import report_tables as tables
from multimodal_zoo.captions.length_chart import length_chart
from multimodal_zoo.captions.report_samples import Sample, Samples, draw_samples
from multimodal_zoo.captions.rows import STATUSES
from multimodal_zoo.captions.statistics import TEXTS, Statistics
from multimodal_zoo.captions.unit_files import UnitRecord
from multimodal_zoo.captions.words import reading
from multimodal_zoo.evaluation.result import Table
from multimodal_zoo.files import write_text

#: Pixels of a shown picture's longer side, and characters of a shown text.
THUMBNAIL, SHOWN = 160, 1000
#: What a run notes of itself in its folder.
MANIFESTS = ("manifest.json", "manifest.engine.json", "manifest.captioner.json")
#: What a page cannot show: control characters and lone surrogates.
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_WORD = re.compile(r"(\w+)")
STYLE = """<style>
.captions td { min-width: 120px; max-width: 260px; overflow-wrap: anywhere; white-space: pre-line; }
.captions td:first-child { min-width: 0; } .captions img { max-width: 120px; border-radius: 6px; }
.captions .raw { color: var(--accent); font-weight: 600; } .captions .new { text-decoration: underline wavy #d1495b; }
.captions .key { color: var(--faint); font-size: 12px; }
</style>"""
LEGEND = (
    "In the fused captions, words that only the raw caption has are bold, and content words that no source has are "
    "underlined."
)


@dataclass(frozen=True)
class Totals:
    """All records of a folder, added up.

    Attributes:
        records: of the units that were written, without their statistics.
        broken: names of the units that could not be read, with what was wrong.
        statuses: rows by status.
        doubles: rows whose key an earlier row of their unit has.
        statistics: of all units.
        counted: rows of the units that have statistics.
    """

    records: list[UnitRecord]
    broken: dict[str, str]
    statuses: dict[str, int]
    doubles: int
    statistics: Statistics
    counted: int

    @property
    def rows(self) -> int:
        """All rows written."""
        return sum(self.statuses.values())


def write_report(
    folder: Path, records: Iterable[UnitRecord], *, rows_shown: int = 24, speed: Mapping[str, Any] | None = None
) -> dict[str, Path]:
    """Write `report.html`, `report.json` and `report.md` of a folder of fused captions.

    The page needs no other file and no network. It can be written again at any time, during the run too.

    Args:
        folder: of the run's output.
        records: of its units.
        rows_shown: accepted rows, and rows that were refused, that the page shows at most.
        speed: what the run noted of its speed: figures by name, and `stages` by name.

    Returns:
        the paths by `html`, `json` and `md`.
    """
    from multimodal_zoo.evaluation.report import page

    totals = add_up(records)
    samples = draw_samples(folder, totals.records, rows_shown)
    title, units = f"Caption fusion: {folder.resolve().name}", len(totals.records)
    subtitle = f"{totals.rows:,} rows in {units:,} {'unit' if units == 1 else 'units'}"
    overview, about = _overview(totals), _about(totals, samples, speed or {})
    manifest = _manifest(folder)
    sections = {
        "Rows": _html(overview[:-1]),
        "Fused captions": _html(overview[-1:]) + _html(about[:2]) + length_chart(_lengths(totals.statistics)),
        "Samples": _samples(samples.accepted, LEGEND),
        "Refused rows": _samples(samples.refused, "Each reason in turn."),
        "The run": _html(about[2:]),
        "How it was made": f"<pre>{escape(manifest)}</pre>" if manifest else "",
    }
    parts = [f"# {_line(title)}", subtitle, *(_safe(table).markdown() for table in (*overview, *about))]
    return {
        "html": write_text(folder / "report.html", page(_clean(title), subtitle, sections)),
        "json": write_text(folder / "report.json", json.dumps(summary(totals, samples, speed or {}), indent=1) + "\n"),
        "md": write_text(folder / "report.md", "\n\n".join(parts)),
    }


def add_up(records: Iterable[UnitRecord]) -> Totals:
    """The sums over units.

    Raises:
        ValueError: a record with statistics that are none.
    """
    kept, broken, statuses, statistics, counted = [], {}, Counter(dict.fromkeys(STATUSES, 0)), Statistics(), 0
    for record in records:
        if record.problem is not None:
            broken[record.name] = record.problem
            continue
        statuses.update(record.statuses)
        if record.statistics is not None:
            statistics.merge(Statistics.from_json(record.statistics))
            counted += record.rows
        kept.append(replace(record, statistics=None))
    return Totals(kept, broken, dict(statuses), sum(one.doubles for one in kept), statistics, counted)


def summary(totals: Totals, samples: Samples, speed: Mapping[str, Any]) -> dict[str, Any]:
    """The content of report.json; fractions of 1, counts that add up to `rows`."""
    statistics = totals.statistics
    return {
        "rows": totals.rows,
        "units": len(totals.records),
        "statuses": totals.statuses,
        "reasons": dict(sorted(statistics.groups["reasons"].items())),
        "flags": dict(sorted(statistics.groups["flags"].items())),
        "doubles": totals.doubles,
        "broken_units": totals.broken,
        "rows_with_statistics": totals.counted,
        "figures": statistics.figures(),
        "counts": dict(sorted(statistics.groups["counts"].items())),
        "words": {
            text: {
                "mean": statistics.mean_words(text),
                **{name: statistics.percentile(text, share) for name, share in tables.PERCENTILES.items()},
            }
            for text in TEXTS
        },
        "trigrams": {
            "rows": samples.trigrams.rows,
            **{text: dict(zip(("distinct", "all"), n, strict=True)) for text, n in samples.trigrams.counts.items()},
        },
        "reference": {"name": "CapsFus-LLaMA 13B, 10,000 published samples", "figures": tables.REFERENCE},
        "speed": dict(speed),
    }


def _overview(totals: Totals) -> list[Table]:
    groups, rows = totals.statistics.groups, totals.rows
    found = [tables.status_table(totals.statuses)]
    if groups["reasons"]:
        found.append(tables.count_table("Why rows were refused", "reason", groups["reasons"], rows))
    if groups["flags"]:
        title = "Flags: filters that object, in refused and in accepted rows"
        found.append(tables.count_table(title, "filter", groups["flags"], rows))
    return [*found, tables.figure_table(totals.statistics)]


def _about(totals: Totals, samples: Samples, speed: Mapping[str, Any]) -> list[Table]:
    return [
        tables.length_table(totals.statistics),
        tables.trigram_table(samples.trigrams),
        tables.run_table(totals.statistics, len(totals.records), len(totals.broken), totals.doubles),
        *([tables.broken_table(totals.broken)] if totals.broken else []),
        *tables.speed_tables(speed),
    ]


def _lengths(statistics: Statistics) -> dict[str, dict[int, int]]:
    return {text: dict(statistics.groups[f"{text}_words"]) for text in TEXTS}


def _manifest(folder: Path) -> str:
    paths = [folder / name for name in MANIFESTS]
    return _clean("\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()))


def _html(found: Sequence[Table]) -> str:
    return _clean("".join(table.html() for table in found))


def _samples(samples: Sequence[Sample], legend: str) -> str:
    if not samples:
        return ""
    heads = "".join(f"<th>{head}</th>" for head in ("picture", "raw", "synthetic", "fused", "remarks"))
    rows = "".join(f"<tr>{_cells(sample)}</tr>" for sample in samples)
    return (
        f'{STYLE}<p>{escape(legend)}</p><figure class="table"><table class="captions"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></figure>"
    )


def _cells(sample: Sample) -> str:
    remarks = [sample.status + (f": {sample.reason}" if sample.reason else "")]
    remarks += [f"flags: {', '.join(sample.flags)}"] if sample.flags else []
    remarks += [f"{sample.attempts} answers"] if sample.attempts > 1 else []
    key = f'<span class="key">{escape(_text(sample.key)[:80])}</span>'
    cells = [
        _thumbnail(sample.picture),
        escape(_text(sample.raw)),
        escape(_text("\n".join(sample.synthetic))),
        _marked(sample),
        escape(_text("\n".join(remarks))) + "\n" + key,
    ]
    return "".join(f'<td dir="auto">{cell}</td>' for cell in cells)


def _marked(sample: Sample) -> str:
    """The fused caption with its words marked by where they come from."""
    raw = reading(sample.raw).vocabulary
    synthetic = frozenset().union(*(reading(text).vocabulary for text in sample.synthetic))
    content = reading(sample.fused).content
    pieces = []
    for place, piece in enumerate(_WORD.split(_text(sample.fused))):
        word, text = piece.lower(), escape(piece)
        if place % 2 and word in content and word not in synthetic:
            pieces.append(f'<span class="{"raw" if word in raw else "new"}">{text}</span>')
        else:
            pieces.append(text)
    return "".join(pieces)


def _thumbnail(picture: bytes | None) -> str:
    """A picture in small as a data address; a word where there is none or it cannot be read."""
    from multimodal_zoo.data.pictures import BROKEN, open_picture, to_rgb
    from multimodal_zoo.data.skips import UnusableError

    if picture is None:
        return "-"
    try:
        small = open_picture(picture, key="sample")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        to_rgb(small).save(buffer, "JPEG", quality=80)
    except (UnusableError, *BROKEN):
        return "cannot be shown"
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def _clean(text: str) -> str:
    return _UNSHOWN.sub("\ufffd", text)


def _text(text: str) -> str:
    """What a cell shows of a text."""
    found = _clean(text.replace("\r", "\n"))
    return found if len(found) <= SHOWN else f"{found[:SHOWN]}\u2026"


def _line(text: str) -> str:
    """A text in one line of Markdown, without HTML or links in it."""
    return escape(" ".join(_clean(text).split()), quote=False).replace("[", "\\[")


def _safe(table: Table) -> Table:
    """A table whose texts, some of them from engines and files, cannot end a Markdown row or begin a tag."""
    rows = [[_line(cell) if isinstance(cell, str) else cell for cell in row] for row in table.rows]
    return Table(table.title, table.columns, rows)
