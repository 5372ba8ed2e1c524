"""Published figures beside measured ones: tables that are made from the results of a suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from multimodal_zoo.catalogue import declared_file, list_group, require
from multimodal_zoo.evaluation.ranking import interval
from multimodal_zoo.evaluation.result import Cell, Result, Table, percent
from multimodal_zoo.registry import EVALUATORS

NOTHING = "-"


@dataclass(frozen=True)
class Section:
    """One published table, in per cent.

    Attributes:
        title: what was measured.
        figure: the figure of a row that names none.
        models: the variants with a column.
        mean: what the publication prints as each column's mean; empty if it prints none.
        rows: `evaluation` or `evaluation/figure` -> one number per model, None where nothing was published.
        also: variants with a few figures only.
        notes: variant -> a sentence for below the table.
    """

    title: str
    figure: str
    models: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]
    mean: Sequence[float] = ()
    also: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def column(self, variant: str) -> dict[str, float]:
        """Row -> published figure of one variant; empty for a variant without any."""
        if variant in self.models:
            place = list(self.models).index(variant)
            return {row: value for row, values in self.rows.items() if (value := values[place]) is not None}
        return dict(self.also.get(variant, {}))

    def printed_mean(self, variant: str) -> float | None:
        """The mean that the publication prints for a variant."""
        return self.mean[list(self.models).index(variant)] if variant in self.models and self.mean else None

    def place_of(self, row: str) -> tuple[str, str]:
        """Evaluation and figure of a row."""
        evaluation, _, figure = row.partition("/")
        return evaluation, figure or self.figure


@cache
def load_section(table: str, section: str) -> Section:
    """A section of a file in `conf/published`.

    Raises:
        KeyError: no such file or section, with the nearest names.
    """
    import yaml

    require(table, list_group("published"), "published table", "table")
    content = yaml.safe_load(declared_file("published", table).read_text(encoding="utf-8"))
    names = [name for name in content if name != "source"]
    return Section(**content[require(section, names, "section", f"{table}: section")])


def variant_of(model: Any) -> str:
    """The name on a model's card, by which its published figures are found."""
    card = (getattr(model, "config", None) or {}).get("card") or {}
    return str(card.get("name") or getattr(model, "variant", None) or "model")


@EVALUATORS.register_module(name="published_table")
class PublishedTable:
    """A published table beside what a suite measured: difference, pictures and 95 % interval of every row.

    The mean covers the rows that were measured, on both sides the same ones, and its title counts them.

    Args:
        table: a file of `conf/published`.
        section: the table in it.
        views: ways of resizing that get a column each (and a table of their own where they were published).
    """

    def __init__(self, table: str, section: str, views: Sequence[str] = ()) -> None:
        self.section = load_section(table, section)
        self.views = list(views)
        self.by_view = {view: load_section(table, f"{section}_{view}") for view in self.views}

    def summarise(self, results: Mapping[str, Result], absent: Mapping[str, str], model: Any) -> Result:
        """The tables.

        Args:
            results: what was measured, by evaluation.
            absent: evaluations whose data was not there, or that failed -> why.
            model: the measured model; its card says which column to compare with.
        """
        variant = variant_of(model)
        ours = measured(self.section, results)
        tables = []
        if ours:
            tables = [comparison(self.section, variant, results, self.views)]
            tables += [comparison(s, variant, results, ()) for s in self.by_view.values() if variant in s.models]
        missing = dict.fromkeys(e for e, _ in map(self.section.place_of, self.section.rows) if e not in results)
        about = {
            "absent": ", ".join(name for name in missing if name in absent),
            "not run": ", ".join(name for name in missing if name not in absent),
            "note": self.section.notes.get(variant, ""),
        }
        if ours and about["note"]:
            tables.append(Table(f"{self.section.title}: note", ("model", "note"), [(variant, about["note"])]))
        metrics: dict[str, float] = {"rows": len(ours), "rows_of_the_table": len(self.section.rows)}
        if ours:
            metrics["mean"] = sum(ours.values()) / len(ours)
        return Result("published_table", metrics, tables, details={"summary": True, "variant": variant, **about})


def measured(section: Section, results: Mapping[str, Result]) -> dict[str, float]:
    """Row -> measured figure, a fraction of 1, for the rows that were measured."""
    places = {row: section.place_of(row) for row in section.rows}
    return {
        row: results[evaluation].metrics[figure]
        for row, (evaluation, figure) in places.items()
        if evaluation in results and figure in results[evaluation].metrics
    }


def comparison(section: Section, variant: str, results: Mapping[str, Result], views: Sequence[str]) -> Table:
    """Published and measured figures of the measured rows of one section, with their mean."""
    published, ours = section.column(variant), measured(section, results)
    by_view = tuple(f"ours, {view.replace('_', ' ')}" for view in views)
    columns = ("data set", "published", "ours", "difference", *by_view, "samples", "95 % interval")
    rows: list[Sequence[Cell]] = []
    for row, share in ours.items():
        evaluation, figure = section.place_of(row)
        result, target = results[evaluation], published.get(row)
        shares = (percent(result.metrics.get(f"{view}_{figure}")) for view in views)
        rows.append(
            (
                row.replace("_", " ").replace("/", ", "),
                NOTHING if target is None else f"{target:.1f}",
                percent(share),
                NOTHING if target is None else f"{100 * share - target:+.1f}",
                *shares,
                samples(result, figure),
                bounds(result, figure),
            )
        )
    rows.append(_mean_row(section, published, ours, [measured_view(section, results, view) for view in views]))
    if not published:
        rows = [(row[0], row[2], *row[4:]) for row in rows]
        return Table(f"{section.title}: ours, per cent", (columns[0], columns[2], *columns[4:]), rows)
    return Table(f"{section.title}: published ({variant}) and ours, per cent", columns, rows)


def measured_view(section: Section, results: Mapping[str, Result], view: str) -> list[float]:
    """The figures of one way of resizing, for the rows that have them."""
    places = [section.place_of(row) for row in section.rows]
    found = (results[e].metrics.get(f"{view}_{figure}") for e, figure in places if e in results)
    return [value for value in found if value is not None]


def _mean_row(
    section: Section, published: Mapping[str, float], ours: Mapping[str, float], views: Sequence[Sequence[float]]
) -> list[Cell]:
    """The mean of the measured rows; a published mean only where every one of these rows was published."""
    known = all(row in published for row in ours)
    target = sum(published[row] for row in ours) / len(ours) if known else None
    mean = sum(ours.values()) / len(ours)
    whole = len(ours) == len(section.rows)
    return [
        f"mean of all {len(ours)}" if whole else f"mean of {len(ours)} of {len(section.rows)}",
        NOTHING if target is None else f"{target:.1f}",
        percent(mean),
        NOTHING if target is None else f"{100 * mean - target:+.1f}",
        *(percent(sum(found) / len(found) if found else None) for found in views),
        NOTHING,
        NOTHING,
    ]


def trials(result: Result, figure: str) -> int:
    """How many samples a share counts: the texts for text queries, the pictures for all else."""
    return int(result.details["texts" if figure.startswith("text_to_image") else "images"])


def samples(result: Result, figure: str) -> str:
    """The number of samples; for pictures also the published one, where it is another."""
    known = result.details.get("published_images") or []
    images = int(result.details["images"])
    count = trials(result, figure)
    return f"{count:,} (of {known[0]:,})" if known and count == images and count not in known else f"{count:,}"


def bounds(result: Result, figure: str) -> str:
    """Wilson's 95 % interval of a share in per cent; none for a mean of shares."""
    if figure in ("top1_top5", "mean_per_class"):
        return NOTHING
    low, high = interval(result.metrics[figure], trials(result, figure))
    return f"{percent(low)}-{percent(high)}"
