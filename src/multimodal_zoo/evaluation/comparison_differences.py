"""What runs differ in: configuration, environment, time and throughput, one column for each run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from multimodal_zoo.evaluation.result import Cell, Table
from multimodal_zoo.evaluation.runs import Run, differing, leaves

#: Top-level keys that name places: they differ between any two runs and say nothing.
PLACES = ("run", "hydra", "resume")
#: Rows of the table on a page; the JSON has all.
ROWS = 120
#: Characters of a value on a page.
WIDTH = 60
#: A key that a run does not have.
ABSENT = "-"
#: Column of metrics.csv with the speed of training.
SPEED = "samples_per_second"


def configuration(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Dotted key -> its value in each run, for keys that differ; first those that every run has.

    Groups (`objective`) come with the file that was chosen for them, before all keys. A key that a run does not have is
    None.
    """
    tables = [{**_choices(run), **_settings(run)} for run in runs]
    keys = differing(tables)
    keys.sort(key=lambda key: (not key.startswith("group "), not all(key in table for table in tables)))
    return {key: [table.get(key) for table in tables] for key in keys}


def configuration_table(runs: Sequence[Run]) -> Table:
    """The differing keys as a table of bounded size."""
    found = configuration(runs)
    rows: list[Sequence[Cell]] = [(key, *map(_short, values)) for key, values in list(found.items())[:ROWS]]
    more = f"; {len(found) - ROWS:,} more stand in the JSON file" if len(found) > ROWS else ""
    return Table(f"keys that differ{more}", ("key", *labels(runs)), rows)


def making(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """How the runs were made -> what each says: state, steps, speed and time always, all else where it differs."""
    tables = [dict(_environment(run)) for run in runs]
    found: dict[str, list[Any]] = {
        "state": [run.state for run in runs],
        "last step": [run.step for run in runs],
        "samples per second (median)": [speed(run) for run in runs],
        "seconds of training": [run.about.get("seconds") for run in runs],
        "parameters": [run.about.get("parameters") for run in runs],
        "weights": [run.about.get("weights") for run in runs],
        "date": [run.about.get("date") for run in runs],
        "command": [run.about.get("command") for run in runs],
    }
    found |= {key: [table.get(key) for table in tables] for key in differing(tables)}
    return {key: values for key, values in found.items() if any(value is not None for value in values)}


def making_table(runs: Sequence[Run]) -> Table:
    """`making` as a table."""
    rows: list[Sequence[Cell]] = [(key, *map(_short, values)) for key, values in making(runs).items()]
    return Table("state, speed, time, and what differs in the environment", ("what", *labels(runs)), rows)


def speed(run: Run) -> float | None:
    """Median of the logged samples per second; None if none were logged."""
    values = [value for name, line in run.history.items() if name.endswith(SPEED) for value in line[1]]
    return round(statistics.median(values), 2) if values else None


def labels(runs: Sequence[Run]) -> list[str]:
    """A head for each run's column, no two alike."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name} #{number + 1}" for number, name in enumerate(names)]


def _choices(run: Run) -> dict[str, Any]:
    chosen = run.training.about.get("choices") or {}
    return {f"group {key}": value for key, value in chosen.items() if "@" not in str(key) and "hydra" not in str(key)}


def _settings(run: Run) -> dict[str, Any]:
    return {key: value for key, value in leaves(run.training.config) if key.partition(".")[0] not in PLACES}


def _environment(run: Run) -> Iterator[tuple[str, Any]]:
    for key, value in (run.about.get("environment") or {}).items():
        yield str(key), value


def _short(value: Any) -> Cell:
    if value is None:
        return ABSENT
    if isinstance(value, float):
        return f"{value:g}"
    text = " ".join(str(list(value) if isinstance(value, Mapping) else value).split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
