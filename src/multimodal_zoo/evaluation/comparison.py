"""Results of several runs, over methods and seeds, in one table and one plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from multimodal_zoo.catalogue import unknown
from multimodal_zoo.evaluation.methods import Method, configured_alike, sort_into_methods
from multimodal_zoo.evaluation.report import attributions, page
from multimodal_zoo.evaluation.result import Cell, Picture, Table
from multimodal_zoo.evaluation.runs import Run, find_runs, without_results
from multimodal_zoo.files import write_bytes, write_text

MISSING, NOT_KNOWN = "missing", "not known"
#: Stem of the files that a comparison is written to.
STEM = "comparison"
#: Columns of figures that fit beside each other on a terminal.
NARROW = 4
INTERVALS = (
    "Figures are fractions of one. `±` is the half width of Student's 95 % interval over runs; in parentheses stands "
    "Wilson's 95 % interval of a single run, which covers the samples of the evaluation and not the spread of seeds."
)


@dataclass(frozen=True)
class Comparison:
    """What runs came to, by method.

    Attributes:
        title: the heading.
        by: the keys by which runs were sorted into methods; empty for the library's own way.
        methods: in order of appearance.
        columns: (evaluation, figure) of the overview.
        headlines: (evaluation, figure) of all headline figures.
        figures: (evaluation, figure) of everything that was measured.
        remarks: what a reader should know.
    """

    title: str
    by: tuple[str, ...]
    methods: tuple[Method, ...]
    columns: tuple[tuple[str, str], ...]
    headlines: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]

    def overview(self) -> Table:
        """One row for each method, one column for each evaluation."""
        heads = [f"{evaluation.replace('_', ' ')}, {figure.replace('_', ' ')}" for evaluation, figure in self.columns]
        rows: list[Sequence[Cell]] = [
            (method.name, len(method.runs), *(self.cell(method, *column) for column in self.columns))
            for method in self.methods
        ]
        return Table("overview", ("method", "runs", *heads), rows)

    def printable(self) -> Table:
        """The overview in the direction that a terminal has room for."""
        return self.overview() if len(self.columns) <= NARROW else self._by_figure("overview", self.columns)

    def details(self) -> Table:
        """One row for each headline figure, one column for each method."""
        return self._by_figure("all headline figures", self.headlines)

    def _by_figure(self, title: str, figures: Sequence[tuple[str, str]]) -> Table:
        rows = [
            (evaluation.replace("_", " "), figure, *(self.cell(method, evaluation, figure) for method in self.methods))
            for evaluation, figure in figures
        ]
        return Table(title, ("evaluation", "figure", *(method.name for method in self.methods)), rows)

    def runs(self) -> Table:
        """One row for each run."""
        rows: list[Sequence[Cell]] = [
            (method.name, NOT_KNOWN if run.seed is None else run.seed, run.name, str(run.about.get("weights", "")))
            for method in self.methods
            for run in method.runs
        ]
        return Table("runs", ("method", "seed", "folder", "weights"), rows)

    def cell(self, method: Method, evaluation: str, figure: str) -> str:
        """A figure with its interval, or that it is missing."""
        found = method.estimate(evaluation, figure)
        return MISSING if found is None else str(found)

    @cached_property
    def picture(self) -> Picture:
        """The plot of the overview's figures."""
        from multimodal_zoo.evaluation.comparison_plot import plot

        return plot(self.methods, self.columns, self.by)

    def json(self) -> str:
        """All figures of all methods, with the value of each run."""
        methods = [
            {
                "name": method.name,
                "by": dict(zip(self.by, method.values, strict=True)) if self.by else {},
                "runs": [{"folder": run.name, "seed": run.seed, "variant": run.variant} for run in method.runs],
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
            for method in self.methods
        ]
        content = {
            "title": self.title,
            "columns": [f"{evaluation}/{figure}" for evaluation, figure in self.columns],
            "methods": methods,
            "remarks": list(self.remarks),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """Tables, remarks and a reference to the plot."""
        remarks = "".join(f"- {remark}\n" for remark in self.remarks)
        parts = [f"# {self.title}\n", self.overview().markdown(), INTERVALS + "\n", remarks]
        parts += [f"![{self.picture.caption}]({STEM}.png)\n", self.details().markdown(), self.runs().markdown()]
        return "\n".join(part for part in parts if part)

    def html(self) -> str:
        """A page that refers to no other file."""
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks)
        results = [result for method in self.methods for run in method.runs for result in run.results.values()]
        sections = {
            "Results": self.overview().html() + f"<p>{escape(INTERVALS.replace('`', ''))}</p>" + self.picture.html(),
            "Remarks": remarks,
            "Headline figures": self.details().html(),
            "Runs": self.runs().html(),
            "Data": "".join(f"<p>{escape(line)}</p>" for line in attributions(results)),
        }
        count = sum(len(method.runs) for method in self.methods)
        return page(self.title, f"{len(self.methods)} methods, {count} runs", sections)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks)
        return self.overview().html() + remarks + self.picture.html()

    def save(self, folder: str | Path) -> Path:
        """Write `comparison.md`, `.json`, `.png` and `.html`.

        Returns:
            the path of the HTML file.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        write_bytes(place / f"{STEM}.png", self.picture.png)
        write_text(place / f"{STEM}.json", self.json())
        write_text(place / f"{STEM}.md", self.markdown())
        return write_text(place / f"{STEM}.html", self.html())


def collect(
    places: Sequence[str | Path],
    by: Sequence[str] = (),
    only: Sequence[str] | None = None,
    figures: Sequence[str] = (),
    mixed: bool = False,
    title: str = "comparison",
) -> Comparison:
    """Collect the results of runs.

    Args:
        places: run folders, folders of such, or shell patterns.
        by: dotted keys of the configuration that make a method, see `sort_into_methods`.
        only: names, or shell patterns of names, of evaluations; None takes all.
        figures: figures that the overview shows of each evaluation that has them; empty for the first headline figure.
        mixed: whether runs whose evaluations were configured differently may stand beside each other.
        title: the heading.

    Raises:
        FileNotFoundError: a place without results.
        KeyError: a key of `by`, an evaluation or a figure that no run has, with the nearest.
        ValueError: evaluations of one name that measured different things.
    """
    runs = find_runs(places)
    names = _chosen([*dict.fromkeys(name for run in runs for name in run.results)], only)
    kept = [Run(run.folder, {n: r for n, r in run.results.items() if n in names}) for run in runs]
    remarks = _unlike(kept, mixed)
    methods, more = sort_into_methods(kept, by)
    return Comparison(
        title,
        tuple(by),
        tuple(methods),
        _columns(kept, names, figures),
        tuple((name, headline) for name in names for headline in _headline(kept, name)),
        _figures(kept, names),
        (*remarks, *more, *_gaps(methods, names), *_unfinished(places, runs)),
    )


def _chosen(names: list[str], only: Sequence[str] | None) -> list[str]:
    for pattern in only or ():
        if not any(fnmatch(name, pattern) for name in names):
            raise unknown(pattern, names, "evaluation", "only")
    return names if only is None else [name for name in names if any(fnmatch(name, pattern) for pattern in only)]


def _unlike(runs: Sequence[Run], mixed: bool) -> list[str]:
    """Remarks on evaluations that were configured differently, and on library versions."""
    found = configured_alike(runs)
    lines = [f"{name} was configured differently: {', '.join(keys[:3])}" for name, keys in found.items()]
    if lines and not mixed:
        raise ValueError(
            f"these runs were not measured alike: {'; '.join(lines)}. Evaluate them with one benchmark, leave the "
            "evaluations out with only=..., or set mixed=true"
        )
    versions = {str((run.about.get("environment") or {}).get("multimodal_zoo", "")) for run in runs} - {""}
    if len(versions) > 1:
        lines.append(f"the runs were evaluated with several versions of multimodal_zoo: {', '.join(sorted(versions))}")
    return lines


def _columns(runs: Sequence[Run], names: Sequence[str], figures: Sequence[str]) -> tuple[tuple[str, str], ...]:
    if not figures:
        return tuple((name, headline) for name in names for headline in _headline(runs, name)[:1])
    known = {name: {metric for run in runs if name in run.results for metric in run.results[name].metrics}
             for name in names}  # fmt: skip
    for figure in figures:
        if not any(figure in metrics for metrics in known.values()):
            raise unknown(figure, sorted(set().union(*known.values())), "figure", "figures")
    return tuple((name, figure) for name in names for figure in figures if figure in known[name])


def _figures(runs: Sequence[Run], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], Any] = {}
    for name in names:
        metrics = [metric for run in runs if name in run.results for metric in run.results[name].metrics]
        found |= dict.fromkeys((name, metric) for metric in (*_headline(runs, name), *metrics))
    return tuple(found)


def _headline(runs: Sequence[Run], name: str) -> list[str]:
    results = [run.results[name] for run in runs if name in run.results]
    return [*dict.fromkeys(metric for r in results for metric in (r.headline or list(r.metrics)[:1]))]


def _gaps(methods: Sequence[Method], names: Sequence[str]) -> list[str]:
    """Which methods lack which evaluations in how many runs, and why."""
    lines = []
    for method in methods:
        for name in names:
            without = [run for run in method.runs if name not in run.results]
            if without:
                reasons = dict.fromkeys(run.missing.get(name, "it was not run") for run in without)
                count = f"{len(without)} of {len(method.runs)} runs"
                lines.append(f"{method.name}: {name} is missing in {count}: {'; '.join(reasons)}")
    return lines


def _unfinished(places: Sequence[str | Path], runs: Sequence[Run]) -> list[str]:
    """Run folders that have no results yet."""
    known = {run.folder.resolve() for run in runs}
    found = [folder.name for folder in without_results(places) if folder.resolve() not in known]
    listed = ", ".join(found[:5]) + (" and more" if len(found) > 5 else "")
    what = "1 run folder has" if len(found) == 1 else f"{len(found)} run folders have"
    return [f"{what} no results yet: {listed}"] if found else []
