"""Loggers of a run, and silence for messages that tell a user nothing."""

from __future__ import annotations

import csv
import logging
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.files import atomic_file

#: Warnings of Lightning and torch that ask for nothing, by how they begin: (message, category).
KNOWN_WARNINGS: Sequence[tuple[str, type[Warning]]] = (
    (r".*LeafSpec.*", FutureWarning),
    (r".*does not have many workers.*", UserWarning),
    (r"Found \d+ module\(s\) in eval mode.*", UserWarning),
    (r".*your dataloader is not resumable.*", UserWarning),
    (r"The number of training batches .* is smaller than the logging interval.*", UserWarning),
    (r"Checkpoint directory .* exists and is not empty.*", UserWarning),
    (r"It is recommended to use `self.log\(.*sync_dist=True\)`.*", UserWarning),
    (r"Trying to infer the `batch_size` from an ambiguous collection.*", UserWarning),
    (r"You defined a `validation_step` but have no `val_dataloader`.*", UserWarning),
    (r"Total length of `list` across ranks is zero.*", UserWarning),
    (r".*_get_pg_default_device.*", FutureWarning),
)


def quieten() -> None:
    """Remove Lightning's own log handler (each line came twice under Hydra), its tips and the known warnings."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.WARNING)
    for message, category in KNOWN_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)


class MetricsCsv(Logger):
    """One row per logged step in `metrics.csv`, numbers in full precision, written at once.

    A resumed run goes on in the same file: rows that the killed run wrote after its checkpoint are dropped.

    Args:
        path: the CSV file.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: list[str] = []
        self._row: dict[str, Any] = {}
        self._opened = False

    @property
    def name(self) -> str:
        """Part of the interface of a logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Part of the interface of a logger."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder has `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add figures to the row of `step`."""
        step = 0 if step is None else step
        if not self._opened:
            self._open(step)
        if self._row and self._row["step"] != step:
            self._write()
        self._row = {"step": step, **self._row, **{key: float(value) for key, value in metrics.items()}}

    @rank_zero_only
    def save(self) -> None:
        """Write the row in hand."""
        if self._row:
            self._write()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the row in hand."""
        self.save()

    def _open(self, step: int) -> None:
        self._opened = True
        if self.path.exists():
            rows = [row for row in read_metrics(self.path) if row["step"] < step]
            self._columns = list(dict.fromkeys(key for row in rows for key in row)) or ["step"]
            self._rewrite(rows)

    def _write(self) -> None:
        row, self._row = self._row, {}
        row.pop("epoch", None)
        new = [key for key in row if key not in self._columns]
        if new:
            rows = read_metrics(self.path) if self.path.exists() else []
            self._columns += new
            self._rewrite([*rows, row])
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rewrite(self, rows: Sequence[Mapping[str, float]]) -> None:
        with atomic_file(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
