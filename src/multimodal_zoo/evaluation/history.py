"""The curves of a training run, read from its metrics.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path

Line = tuple[list[float], list[float]]

#: Charts on a report; the columns named first come first.
PANELS = 9
#: Points of a curve over several runs; a screen shows no more.
POINTS = 1000
FIRST = (
    "loss",
    "target_deviation",
    "R@1",
    "accuracy",
    "top1",
    "learning_rate",
    "lr",
    "logit_scale",
    "samples_per_second",
)


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, ours or that of Lightning's CSVLogger, each with its `step`.

    Cells that are empty or no numbers are left out, and so is a last line cut by a kill.

    Raises:
        ValueError: a file without a `step` column.
    """
    with Path(path).open(newline="", encoding="utf-8") as file:
        complete = [line for line in file.read().splitlines(keepends=True) if line.endswith("\n")]
    reader = csv.DictReader(complete)
    if "step" not in (reader.fieldnames or ()):
        raise ValueError(f"{path} has no column 'step'; it has {', '.join(reader.fieldnames or ())}")
    rows = [{key: float(cell) for key, cell in row.items() if _is_number(cell)} for row in reader]
    return [{**row, "step": int(row["step"])} for row in rows if math.isfinite(row.get("step", math.nan))]


def _is_number(cell: object) -> bool:
    try:
        float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
    return True


def read_history(path: str | Path) -> dict[str, Line]:
    """Column -> (steps, values), from the rows of `read_metrics`."""
    lines: dict[str, Line] = {}
    for row in read_metrics(path):
        for name, value in row.items():
            if name not in ("step", "epoch"):
                steps, values = lines.setdefault(name, ([], []))
                steps.append(row["step"])
                values.append(value)
    return lines


def panels(history: dict[str, Line]) -> dict[str, dict[str, Line]]:
    """Columns of one last name (`train/loss`, `validation/loss`) share a chart; the most telling charts come first."""
    charts: dict[str, dict[str, Line]] = {}
    for name, line in history.items():
        prefix, _, title = name.rpartition("/")
        charts.setdefault(title, {})[prefix or title] = line

    return {title: charts[title] for title in sorted(charts, key=telling)[:PANELS]}


def telling(name: str) -> tuple[int, bool, str]:
    """Sorts columns: those that `FIRST` names in its order, a column of just that name before others with it in theirs.

    The rest follows by name, and then the weights of losses.
    """
    last = name.rpartition("/")[2]
    place = next((place for place, word in enumerate(FIRST) if word in last), len(FIRST))
    return len(FIRST) + 1 if last.endswith("_weight") else place, last not in FIRST, name


def thin(line: Line, points: int = POINTS) -> Line:
    """At most `points` of a line, evenly spread, the last one among them."""
    steps, values = line
    every = -(-len(steps) // points)
    kept = range((len(steps) - 1) % every, len(steps), every) if steps else range(0)
    return [steps[n] for n in kept], [values[n] for n in kept]
