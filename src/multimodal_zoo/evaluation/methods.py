"""Sorting runs into methods: a method's runs differ in their seeds alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from multimodal_zoo.catalogue import unknown
from multimodal_zoo.evaluation.estimate import Estimate, estimate
from multimodal_zoo.evaluation.published import trials
from multimodal_zoo.evaluation.runs import NONE, Run, differing, leaves

#: Differing keys that a method's name shows.
SHOWN = 3


@dataclass(frozen=True)
class Method:
    """Runs of one method.

    Attributes:
        name: what it is called in tables.
        values: what each key of `by` is for it.
        runs: its runs.
    """

    name: str
    values: tuple[Any, ...]
    runs: tuple[Run, ...]

    def has(self, evaluation: str, figure: str) -> bool:
        """Whether any of its runs has a figure."""
        return any(figure in run.results[evaluation].metrics for run in self.runs if evaluation in run.results)

    def estimate(self, evaluation: str, figure: str) -> Estimate | None:
        """Mean and interval of a figure over its runs; None if none has it."""
        results = [run.results[evaluation] for run in self.runs if evaluation in run.results]
        results = [result for result in results if figure in result.metrics]
        values = [result.metrics[figure] for result in results]
        if not values:
            return None
        counts = trials(results[0], figure) if "images" in results[0].details else None
        return estimate(values, len(self.runs), figure, counts)


def sort_into_methods(runs: Sequence[Run], by: Sequence[str] = ()) -> tuple[list[Method], list[str]]:
    """Methods in order of first appearance, and remarks on what a reader should know of them.

    Args:
        runs: evaluated runs.
        by: dotted keys of the configuration (`objective`, `data.train.share`); runs with equal values are one method,
            whatever else differs (a remark says what). Without keys runs are told apart by variant, by objective where
            it differs, and by everything else that differs but the seed.

    Raises:
        KeyError: a key that no run has, with the nearest.
    """
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault(tuple(run.value(key) for key in by) if by else (run.variant,), []).append(run)
    for place, key in enumerate(by):
        if all(values[place] is None for values in groups):
            raise unknown(key, known_keys(runs), "key of the configuration", "by")
    methods, remarks = [], []
    for values, members in groups.items():
        if by:
            shown = tuple(NONE if value is None else value for value in values)
            methods.append(Method(_title(by, shown), shown, tuple(members)))
            if keys := other_differences(members, by):
                remarks.append(f"{methods[-1].name}: its runs differ in more than the seed ({_listed(keys)})")
        else:
            methods += split(str(values[0]), members)
    return methods, remarks + seed_remarks(methods)


def split(name: str, runs: Sequence[Run]) -> list[Method]:
    """The runs of a variant as methods, named after what differs between them."""
    tables = [distinctions(run, runs) for run in runs]
    keys = differing(tables)
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for run, table in zip(runs, tables, strict=True):
        groups.setdefault(tuple(table.get(key) for key in keys), []).append(run)
    methods = []
    for values, members in groups.items():
        words = [_word(key, value) for key, value in zip(keys, values, strict=True)][:SHOWN]
        methods.append(Method(", ".join([name, *words]), (name,), tuple(members)))
    names = [method.name for method in methods]
    if len(set(names)) < len(names):  # what differs lies beyond the keys that are shown
        methods = [Method(f"{m.name}, {m.runs[0].name}", m.values, m.runs) for m in methods]
    return methods


def distinctions(run: Run, runs: Sequence[Run]) -> dict[str, Any]:
    """What tells a run from the others: groups with another choice by that choice, everything else by its key."""
    choices = [other.training.about.get("choices") or {} for other in runs]
    if not all(choices):  # an unfinished run has recorded none: then keys alone tell runs apart
        choices = [{}]
    own = run.training.about.get("choices") or {}
    groups = [
        group
        for group in differing(choices)
        if "@" not in group and "hydra" not in group and group not in ("model", "benchmark", "logger", "callbacks")
    ]
    table = {group: own.get(group) for group in groups}
    if "objective" not in groups and len({other.value("objective") for other in runs}) > 1:
        table["objective"] = run.value("objective")
    covered = tuple(f"{group}." for group in table)
    return {**table, **{k: v for k, v in run.declared().items() if not k.startswith(covered)}}


def other_differences(runs: Sequence[Run], by: Sequence[str]) -> list[str]:
    """Keys beside those of `by` whose values differ between runs."""
    tables = [distinctions(run, runs) for run in runs]
    return [key for key in differing(tables) if not any(key == one or key.startswith(f"{one}.") for one in by)]


def seed_remarks(methods: Iterable[Method]) -> list[str]:
    """Which methods have runs of one seed, or of unknown seeds."""
    remarks = []
    for method in methods:
        seeds = [run.seed for run in method.runs]
        twice = sorted({str(seed) for seed in seeds if seed is not None and seeds.count(seed) > 1})
        if twice:
            remarks.append(f"{method.name}: several runs of seed {', '.join(twice)}; the interval takes them for seeds")
        if len(seeds) > 1 and None in seeds:
            remarks.append(f"{method.name}: the seeds of its runs are not known; each run counts as one")
    return remarks


def known_keys(runs: Iterable[Run]) -> list[str]:
    """Every key by which runs could be told apart."""
    keys: dict[str, None] = {}
    for run in runs:
        keys |= dict.fromkeys((run.about.get("choices") or {}), None)
        for tree in (run.training.config, run.config):
            for key, _ in leaves(tree):
                parts = key.split(".")
                keys |= dict.fromkeys(".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return list(keys)


def numeric(values: Iterable[Any]) -> bool:
    """Whether all values are numbers, so that they can stand on an axis."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _title(keys: Sequence[str], values: Sequence[Any]) -> str:
    words = (str(v) if isinstance(v, str) else _word(key, v) for key, v in zip(keys, values, strict=True))
    return ", ".join(words)


def _word(key: str, value: Any) -> str:
    return str(value) if key in ("objective", "model") else f"{key.rpartition('.')[2]}={value}"


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def configured_alike(runs: Sequence[Run]) -> Mapping[str, list[str]]:
    """Evaluation -> keys of its configuration that differ between the runs that have it; only those that differ."""
    found = {}
    for name in dict.fromkeys(name for run in runs for name in run.results):
        tables = [table for run in runs if name in run.results and (table := run.evaluator(name))]
        if keys := differing(tables):
            found[name] = keys
    return found
