"""A comparison of runs as tables, plots and pictures, and its writing: one HTML page, Markdown, JSON, PNG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from multimodal_zoo.evaluation.comparison_differences import configuration, configuration_table, making, making_table
from multimodal_zoo.evaluation.comparison_families import Column, Family, families
from multimodal_zoo.evaluation.comparison_pictures import Gallery, gallery
from multimodal_zoo.evaluation.comparison_training import Trainings, trainings
from multimodal_zoo.evaluation.methods import Method
from multimodal_zoo.evaluation.report import attributions, page
from multimodal_zoo.evaluation.result import Cell, Picture, Table, plain
from multimodal_zoo.evaluation.runs import Run
from multimodal_zoo.files import write_bytes, write_text

MISSING, NOT_KNOWN = "missing", "not known"
#: Stem of the files that a comparison is written to.
STEM = "comparison"
#: Columns of figures that fit beside each other on a terminal.
NARROW = 4
INTERVALS = (
    "Shares are fractions of one. `±` is the half width of Student's 95 % interval over runs; in parentheses stands "
    "Wilson's 95 % interval of a single run, which covers the samples of the evaluation and not the spread of seeds."
)


@dataclass(frozen=True)
class Comparison:
    """What runs came to, by method.

    Attributes:
        title: the heading.
        by: the keys by which runs were sorted into methods; empty for the library's own way.
        methods: in order of appearance.
        families: methods that share evaluations, with the figures that the overview shows of them.
        headlines: (evaluation, figure) of all headline figures.
        figures: (evaluation, figure) of everything that was measured or logged.
        remarks: what a reader should know.
    """

    title: str
    by: tuple[str, ...]
    methods: tuple[Method, ...]
    families: tuple[Family, ...]
    headlines: tuple[Column, ...]
    figures: tuple[Column, ...]
    remarks: tuple[str, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """(evaluation, figure) of the overview."""
        return tuple(dict.fromkeys(column for family in self.families for column in family.columns))

    def overviews(self) -> list[Table]:
        """A table for each family: one row for each method, one column for each evaluation."""
        return [self._by_method(family) for family in self.families]

    def printable(self) -> list[Table]:
        """The overviews, each in the direction that a terminal has room for."""
        return [
            self._by_method(family)
            if len(family.columns) <= max(NARROW, len(family.methods))
            else self._by_figure("overview", family)
            for family in self.families
        ]

    def details(self) -> list[Table]:
        """All headline figures of each family, the longer side of the table down."""
        return [
            self._by_method(family, "all headline figures")
            if len(family.methods) > len(family.columns)
            else self._by_figure("all headline figures", family)
            for family in families(self.methods, self.headlines)
        ]

    def _by_method(self, family: Family, title: str = "overview") -> Table:
        heads = [f"{evaluation.replace('_', ' ')}, {figure.replace('_', ' ')}" for evaluation, figure in family.columns]
        rows: list[Sequence[Cell]] = [
            (method.name, len(method.runs), *(self.cell(method, *column) for column in family.columns))
            for method in family.methods
        ]
        return Table(title, ("method", "runs", *heads), rows)

    def _by_figure(self, title: str, family: Family) -> Table:
        methods = family.methods
        rows = [
            (
                evaluation.replace("_", " "),
                figure,
                *(self.cell(method, evaluation, figure) for method in family.methods),
            )
            for evaluation, figure in family.columns
        ]
        return Table(title, ("evaluation", "figure", *(method.name for method in methods)), rows)

    @cached_property
    def members(self) -> list[Run]:
        """All runs, method by method."""
        return [run for method in self.methods for run in method.runs]

    @cached_property
    def trainings(self) -> list[Trainings]:
        """The methods that logged the same figures, together."""
        return trainings(self.methods)

    @cached_property
    def curves(self) -> list[Picture]:
        """The training curves, a picture for each of `trainings`."""
        return [training.picture() for training in self.trainings]

    @cached_property
    def gallery(self) -> Gallery:
        """The pictures that the runs kept."""
        return gallery(self.members)

    def runs(self) -> Table:
        """One row for each run."""
        rows: list[Sequence[Cell]] = [
            (
                method.name,
                NOT_KNOWN if run.seed is None else run.seed if isinstance(run.seed, int) else str(run.seed),
                run.name,
                run.state,
                str(run.about.get("weights", "")),
            )
            for method in self.methods
            for run in method.runs
        ]
        return Table("runs", ("method", "seed", "folder", "state", "weights"), rows)

    def cell(self, method: Method, evaluation: str, figure: str) -> str:
        """A figure with its interval, or that it is missing."""
        found = method.estimate(evaluation, figure)
        return MISSING if found is None else str(found)

    @cached_property
    def picture(self) -> Picture | None:
        """The plot of the overview's figures; None if nothing was measured."""
        from multimodal_zoo.evaluation.comparison_plot import plot

        return plot(self.families, self.by) if self.columns else None

    def json(self) -> str:
        """All figures of all methods, with the value of each run, and everything that differs."""
        content = {
            "title": self.title,
            "columns": [f"{evaluation}/{figure}" for evaluation, figure in self.columns],
            "methods": [self._method(method) for method in self.methods],
            "runs": [run.name for run in self.members],
            "configuration": configuration(self.members),
            "making": making(self.members),
            "remarks": list(self.remarks),
        }
        return json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n"

    def _method(self, method: Method) -> dict[str, Any]:
        return {
            "name": method.name,
            "by": dict(zip(self.by, method.values, strict=True)) if self.by else {},
            "runs": [
                {"folder": run.name, "seed": run.seed, "variant": run.variant, "state": run.state, "step": run.step}
                for run in method.runs
            ],
            "figures": {
                f"{evaluation}/{figure}": {
                    "mean": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "interval": found.interval,
                    "values": list(found.values),
                }
                for evaluation, figure in self.figures
                if (found := method.estimate(evaluation, figure)) is not None
            },
        }

    def markdown(self) -> str:
        """Tables, remarks and references to the plots."""
        remarks = "".join(f"- {plain(remark)}\n" for remark in self.remarks)
        plots = [(plain(picture.caption), file) for file, picture in self._plots().items()]
        parts = [
            f"# {plain(self.title)}\n",
            *(table.markdown() for table in self.overviews()),
            INTERVALS + "\n",
            remarks,
        ]
        parts += [f"![{caption}]({file})\n" for caption, file in plots]
        parts += [training.table().markdown() for training in self.trainings]
        parts += [table.markdown() for table in (*self.details(), *self._differences(), self.runs())]
        return "\n".join(part for part in parts if part)

    def html(self) -> str:
        """A page that refers to no other file."""
        results = [result for run in self.members for result in run.results.values()]
        pictures, figures = self.gallery.html(), _html(self.details())
        remarks = (*self.remarks, *self.gallery.problems)
        plot = "" if self.picture is None else self.picture.html()
        sections = {
            "Results": _html(self.overviews()) + f"<p>{escape(INTERVALS.replace('`', ''))}</p>" + plot,
            "Remarks": "".join(f"<p>{escape(remark)}</p>" for remark in remarks),
            "Training": "".join(
                training.table().html() + curves.html()
                for training, curves in zip(self.trainings, self.curves, strict=True)
            ),
            "Headline figures": f"<details><summary>all of them</summary>{figures}</details>" if figures else "",
            "Pictures": pictures,
            "Differences": _html(self._differences()),
            "Runs": self.runs().html(),
            "Data": "".join(f"<p>{escape(line)}</p>" for line in attributions(results)),
        }
        return page(self.title, f"{len(self.methods)} methods, {len(self.members)} runs", sections)

    def _differences(self) -> list[Table]:
        return [configuration_table(self.members), making_table(self.members)]

    def _plots(self) -> Mapping[str, Picture]:
        """File name -> plot."""
        results = {} if self.picture is None else {f"{STEM}.png": self.picture}
        return results | {f"{STEM}_training_{n}.png": curves for n, curves in enumerate(self.curves, start=1)}

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks)
        drawn = [*([] if self.picture is None else [self.picture]), *self.curves]
        return _html(self.overviews()) + remarks + "".join(picture.html() for picture in drawn)

    def save(self, folder: str | Path) -> Path:
        """Write `comparison.md`, `.json`, `.html` and its plots as `.png`.

        Returns:
            the path of the HTML file.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        for file, picture in self._plots().items():
            write_bytes(place / file, picture.png)
        write_text(place / f"{STEM}.json", self.json())
        write_text(place / f"{STEM}.md", self.markdown())
        return write_text(place / f"{STEM}.html", self.html())


def _html(tables: Sequence[Table]) -> str:
    return "".join(table.html() for table in tables)
