"""The CSV of a run."""

from __future__ import annotations

from pathlib import Path

from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.logs import MetricsCsv


def test_rows_merge_by_step_and_columns_grow(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsCsv(path)
    log.log_metrics({"loss": 0.1 + 0.2, "epoch": 0}, 0)
    log.log_metrics({"rate": 3.0}, 0)
    log.log_metrics({"loss": 0.25, "validation": 1.0}, 1)
    log.save()
    assert read_metrics(path) == [
        {"step": 0, "loss": 0.1 + 0.2, "rate": 3.0},
        {"step": 1, "loss": 0.25, "validation": 1.0},
    ]


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    log = MetricsCsv(path)
    for step in range(5):
        log.log_metrics({"loss": float(step)}, step)
    log.save()
    with path.open("a") as file:
        file.write("5,0.")  # a kill cut the last line
    log = MetricsCsv(path)
    log.log_metrics({"loss": 30.0}, 3)
    log.log_metrics({"loss": 40.0}, 4)
    log.finalize("success")
    assert [row["loss"] for row in read_metrics(path)] == [0.0, 1.0, 2.0, 30.0, 40.0]
