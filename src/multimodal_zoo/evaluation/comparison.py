"""Results of several runs of any kind, over methods and seeds: what is compared, and what a reader should know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from multimodal_zoo.catalogue import chosen, unknown
from multimodal_zoo.evaluation.comparison_families import families
from multimodal_zoo.evaluation.comparison_page import Comparison
from multimodal_zoo.evaluation.comparison_training import trainings
from multimodal_zoo.evaluation.methods import Method, configured_alike, sort_into_methods
from multimodal_zoo.evaluation.runs import TRAINING, Run, find_runs, select, without_results

#: Remarks of one kind.
LISTED = 20


def collect(
    places: Sequence[str | Path],
    by: Sequence[str] = (),
    only: Sequence[str] | None = None,
    figures: Sequence[str] = (),
    mixed: bool = False,
    title: str = "comparison",
) -> Comparison:
    """Collect what runs came to: results, last logged values, curves, pictures, and what they differ in.

    Args:
        places: run folders, folders of such, or shell patterns.
        by: dotted keys of the configuration that make a method, see `sort_into_methods`.
        only: names, or shell patterns of names, of evaluations; None takes all.
        figures: figures that the overview shows of each evaluation that has them; empty for the first headline figure.
        mixed: whether runs whose evaluations were configured differently may stand beside each other.
        title: the heading.

    Raises:
        FileNotFoundError: a place without runs.
        KeyError: a key of `by`, an evaluation or a figure that no run has, with the nearest.
        ValueError: evaluations of one name that measured different things.
    """
    runs = [with_finals(run) for run in find_runs(places)]
    names = chosen([*dict.fromkeys(name for run in runs for name in run.results)], only, "evaluation", "only")
    kept = [replace(run, results={n: r for n, r in run.results.items() if n in names}) for run in runs]
    measured = [name for name in names if name != TRAINING]
    remarks = _unlike(kept, mixed)
    methods, more = sort_into_methods(kept, by)
    columns = _columns(kept, names if figures else measured, figures)
    shown = families(methods, columns) if columns else [training.family() for training in trainings(methods)]
    return Comparison(
        title,
        tuple(by),
        tuple(methods),
        tuple(shown),
        tuple((name, headline) for name in measured for headline in _headline(kept, name)),
        _figures(kept, names),
        (*_damage(runs), *remarks, *more, *_gaps(methods, measured), *_unfinished(places, runs)),
    )


def with_finals(run: Run) -> Run:
    """A run with the last logged values of its training beside its evaluations."""
    finals = run.finals()
    return run if finals is None else replace(run, results={**run.results, TRAINING: finals})


def _damage(runs: Sequence[Run]) -> list[str]:
    lines = [problem for run in runs for problem in run.problems]
    return lines[:LISTED] + ([f"{len(lines) - LISTED} more files are damaged"] if len(lines) > LISTED else [])


def _unlike(runs: Sequence[Run], mixed: bool) -> list[str]:
    """Remarks on evaluations that were configured differently, and on library versions."""
    found = configured_alike(runs)
    lines = [f"{name} was configured differently: {', '.join(keys[:3])}" for name, keys in found.items()]
    if lines and not mixed:
        raise ValueError(
            f"these runs were not measured alike: {'; '.join(lines)}. Evaluate them with one benchmark, leave the "
            "evaluations out with only=..., or set mixed=true"
        )
    versions = {str(select(run.about, "environment.multimodal_zoo") or "") for run in runs} - {""}
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
    """Which methods lack which evaluations of their family in how many runs, and why; and which have none at all."""
    lines = []
    found = families(methods, [(name, "") for name in names])
    for family in found:
        for method in family.methods:
            for name, _ in family.columns:
                without = [run for run in method.runs if name not in run.results]
                if without:
                    reasons = dict.fromkeys(run.missing.get(name, "it was not run") for run in without)
                    count = f"{len(without)} of {len(method.runs)} runs"
                    lines.append(f"{method.name}: {name} is missing in {count}: {'; '.join(reasons)}")
    known = [method for family in found for method in family.methods]
    lines += [f"{method.name}: no evaluation has results" for method in methods if found and method not in known]
    return lines[:LISTED] + ([f"{len(lines) - LISTED} more results are missing"] if len(lines) > LISTED else [])


def _unfinished(places: Sequence[str | Path], runs: Sequence[Run]) -> list[str]:
    """Run folders that have no results yet."""
    known = {run.folder.resolve() for run in runs}
    found = [folder.name for folder in without_results(places) if folder.resolve() not in known]
    listed = ", ".join(found[:5]) + (" and more" if len(found) > 5 else "")
    what = "1 run folder has" if len(found) == 1 else f"{len(found)} run folders have"
    return [f"{what} no results yet: {listed}"] if found else []
