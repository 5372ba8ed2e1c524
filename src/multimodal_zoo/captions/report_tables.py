"""The tables of a fusion report: what became of the rows, and how much of their sources the fused captions keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_zoo.captions.report_samples import Trigrams
from multimodal_zoo.captions.rows import FAILED, FUSED, REJECTED, STATUSES
from multimodal_zoo.captions.statistics import LONGEST, TEXTS, Statistics
from multimodal_zoo.evaluation.result import Table, percent

#: The published student, CapsFus-LLaMA-13B: counted by the definitions of `captions.words` on the 10,000 samples that
#: baaivision/CapsFusion ships (commit 72404b3). Fractions of 1.
REFERENCE = {
    "raw_kept": 0.886,
    "synthetic_kept": 0.781,
    "numbers_kept": 0.860,
    "names_kept": 0.918,
    "novelty": 0.280,
    "raw_lost": 0.008,
    "synthetic_lost": 0.039,
    "joined": 0.031,
    "unclosed": 0.027,
    "leaks": 0.040,
}
#: Mean words of the same samples' texts, and their distinct and all runs of three words.
REFERENCE_WORDS = {"raw": 11.1, "synthetic": 9.0, "fused": 23.3}
REFERENCE_TRIGRAMS = {"raw": (87_554, 90_801), "synthetic": (45_583, 69_838), "fused": (167_949, 212_595)}
#: What each figure counts, and which way is better.
FIGURES = {
    "raw_kept": ("content words of the raw caption kept", "higher"),
    "synthetic_kept": ("content words of the synthetic captions kept", "higher"),
    "numbers_kept": ("numbers of the raw caption kept", "higher"),
    "names_kept": ("capitalised words of the raw caption kept", "higher"),
    "novelty": ("content words that no source has", "lower"),
    "raw_lost": ("rows that keep nothing of the raw caption", "lower"),
    "synthetic_lost": ("rows that keep nothing of the synthetic captions", "lower"),
    "joined": ("rows that hold both sources one after the other", "lower"),
    "unclosed": ("rows without closing punctuation", "lower"),
    "leaks": ("rows that leak the instruction", "lower"),
}
#: Shares of the rows whose lengths do not exceed the figure beneath.
PERCENTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95, "99 %": 0.99, "longest": 1.0}
#: Broken units that are named.
MOST_BROKEN = 50
MEANING = {
    FUSED: "the fused caption stands",
    REJECTED: "a filter refused every answer; the last one is kept",
    FAILED: "there is no answer",
}


def status_table(statuses: Mapping[str, int]) -> Table:
    """Rows of each status, with their share."""
    total = sum(statuses.values())
    rows = [
        (status, statuses.get(status, 0), percent(statuses.get(status, 0) / total if total else None), MEANING[status])
        for status in STATUSES
    ]
    return Table(f"{total:,} rows", ("status", "rows", "percent", "what it means"), rows)


def count_table(title: str, name: str, counts: Mapping[str, int], total: int) -> Table:
    """Names by how often they were counted, the most frequent first, with their share of all rows."""
    listed = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return Table(
        title, (name, "rows", "percent"), [(key, n, percent(n / total if total else None)) for key, n in listed]
    )


def figure_table(statistics: Statistics) -> Table:
    """The fusion report's figures beside those of the published student, in percent."""
    found = statistics.figures()
    rows = [(text, percent(found[name]), percent(REFERENCE[name]), better) for name, (text, better) in FIGURES.items()]
    title = f"Fused captions against their sources, percent, {statistics.accepted:,} accepted rows"
    return Table(title, ("figure", "here", "CapsFus-LLaMA 13B", "better"), rows)


def length_table(statistics: Statistics) -> Table:
    """Words of the accepted rows' texts."""
    rows = []
    for text in TEXTS:
        mean = statistics.mean_words(text)
        found = [statistics.percentile(text, share) for share in PERCENTILES.values()]
        cells = ["-" if n is None else f"{n}+" if n == LONGEST else str(n) for n in found]
        rows.append((text, "-" if mean is None else f"{mean:.1f}", *cells, f"{REFERENCE_WORDS[text]:.1f}"))
    return Table("Words of the accepted rows' captions", ("text", "mean", *PERCENTILES, "published mean"), rows)


def trigram_table(trigrams: Trigrams) -> Table:
    """How varied the captions are; shares fall as rows are added, so only equal numbers of rows compare."""
    rows = []
    for text in TEXTS:
        distinct, total = trigrams.counts[text]
        published, all_published = REFERENCE_TRIGRAMS[text]
        share = percent(distinct / total if total else None)
        rows.append((text, distinct, total, share, percent(published / all_published)))
    title = f"Runs of three words in {trigrams.rows:,} accepted rows (published: 10,000 rows)"
    return Table(title, ("text", "distinct", "all", "distinct, percent", "published, percent"), rows)


def speed_tables(speed: Mapping[str, Any]) -> list[Table]:
    """What the run noted of its speed: the whole, and each stage.

    Args:
        speed: figures by name; `stages` has for each stage its seconds, or figures by name.
    """
    whole = [(_words(name), _number(value)) for name, value in speed.items() if not isinstance(value, Mapping)]
    tables = [Table("Speed", ("figure", "value"), whole)] if whole else []
    stages = speed.get("stages") or {}
    given = {stage: value if isinstance(value, Mapping) else {"seconds": value} for stage, value in stages.items()}
    columns = list(dict.fromkeys(name for figures in given.values() for name in figures))
    if columns:
        rows = [(stage, *(_number(figures.get(name)) for name in columns)) for stage, figures in given.items()]
        tables.append(Table("Stages", ("stage", *map(_words, columns)), rows))
    return tables


def run_table(statistics: Statistics, records: int, broken: int, doubles: int) -> Table:
    """What else was counted of a run."""
    counts = statistics.groups["counts"]
    asked = counts["attempts"] / counts["rows"] if counts["rows"] else None
    rows: Sequence[tuple[str, str]] = [
        ("units written", f"{records:,}"),
        ("units that could not be read", f"{broken:,}"),
        ("rows whose key an earlier row of their unit has", f"{doubles:,}"),
        ("answers asked for, mean per row", "-" if asked is None else f"{asked:.2f}"),
        ("rows whose captions were shortened to fit the prompt", f"{counts['shortened']:,}"),
    ]
    return Table("The run", ("figure", "value"), rows)


def broken_table(broken: Mapping[str, str]) -> Table:
    """Units that could not be read, the first ones."""
    rows = [(name, problem) for name, problem in list(broken.items())[:MOST_BROKEN]]
    return Table("Units that could not be read", ("unit", "what is wrong"), rows)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"
