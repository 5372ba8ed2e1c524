"""The curves of a training run, read from its metrics.csv."""

from __future__ import annotations

import csv
from pathlib import Path

Line = tuple[list[float], list[float]]

#: Charts on a report; the columns named first come first.
PANELS = 9
FIRST = ("loss", "R@1", "accuracy", "top1", "learning_rate", "lr", "logit_scale", "samples_per_second")


def read_history(path: Path) -> dict[str, Line]:
    """Column -> (steps, values) of a metrics.csv, ours or that of Lightning's CSVLogger (empty cells are left out).

    Raises:
        ValueError: a file without a `step` column.
    """
    lines: dict[str, Line] = {}
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if "step" not in (reader.fieldnames or ()):
            raise ValueError(f"{path} has no column 'step'; it has {', '.join(reader.fieldnames or ())}")
        for row in reader:
            for name, cell in row.items():
                if name in ("step", "epoch") or not cell or not row["step"]:
                    continue
                steps, values = lines.setdefault(name, ([], []))
                try:
                    value = float(cell)
                except ValueError:
                    continue
                steps.append(float(row["step"]))
                values.append(value)
    return {name: line for name, line in lines.items() if line[0]}


def panels(history: dict[str, Line]) -> dict[str, dict[str, Line]]:
    """Columns of one last name (`train/loss`, `validation/loss`) share a chart; the most telling charts come first."""
    charts: dict[str, dict[str, Line]] = {}
    for name, line in history.items():
        prefix, _, title = name.rpartition("/")
        charts.setdefault(title, {})[prefix or title] = line

    def order(title: str) -> tuple[int, str]:
        """Named ones in their order, then the others by name."""
        return next((place for place, word in enumerate(FIRST) if word in title), len(FIRST)), title

    return {title: charts[title] for title in sorted(charts, key=order)[:PANELS]}
