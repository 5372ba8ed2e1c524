"""Samples per second, and one progress bar over all steps."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from multimodal_zoo.training.steps import StepEnds


class Throughput(Callback):
    """Logs `samples_per_second` over all ranks since the last logged step, without the time of validation."""

    def __init__(self) -> None:
        self._samples = 0
        self._since = 0.0
        self._paused = 0.0
        self._ends = StepEnds()
        #: the last figure, for the progress bar
        self.rate = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self._samples, self._since = 0, time.monotonic()
        self._ends.begin(trainer)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count, and log where Lightning logs."""
        self._samples += samples_in(batch)
        now = time.monotonic()
        self.rate = self._samples * trainer.world_size / max(now - self._since, 1e-9)
        if self._ends.over(trainer) and trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log("samples_per_second", self.rate)
            self._samples, self._since = 0, now

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the clock."""
        self._paused = time.monotonic()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Let the clock go on."""
        self._since += time.monotonic() - self._paused


class ProgressBar(Callback):
    """Shows step, loss, samples per second and the time left; plain lines where the output is no terminal.

    Args:
        refresh_seconds: how often the bar is drawn.
        line_seconds: how often a plain line is printed.
    """

    def __init__(self, refresh_seconds: float = 0.25, line_seconds: float = 20.0) -> None:
        self.refresh_seconds = refresh_seconds
        self.line_seconds = line_seconds
        self._console = Console()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._shown = 0.0
        self._start = 0.0
        self._first = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the bar at the step that training starts from."""
        self._start = self._shown = time.monotonic()
        self._first = trainer.global_step
        if trainer.is_global_zero and self._console.is_terminal:
            columns = (
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(),
                TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} samples/s"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, auto_refresh=False)
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=steps_of(trainer), completed=trainer.global_step, loss=float("nan"), rate=0.0
            )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw when enough time has passed: reading the loss makes an accelerator wait."""
        now = time.monotonic()
        pause = self.refresh_seconds if self._bar is not None else self.line_seconds
        if trainer.is_global_zero and now - self._shown >= pause:
            self._shown = now
            self._show(trainer)

    def _show(self, trainer: lightning.Trainer) -> None:
        loss = float(trainer.callback_metrics.get("train/loss", math.nan))  # what a step returns is an accumulated part
        rate = next((c.rate for c in trainer.callbacks if isinstance(c, Throughput)), 0.0)  # type: ignore[attr-defined]
        step, total = trainer.global_step, steps_of(trainer)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, loss=loss, rate=rate)
            self._bar.refresh()
            return
        done = max(1, step - self._first)
        left = (time.monotonic() - self._start) / done * (total - step)
        print(f"step {step}/{total}  loss {loss:.4f}  {rate:,.0f} samples/s  {left:,.0f} s left", flush=True)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the last state and leave the terminal as it was."""
        if trainer.is_global_zero and "train/loss" in trainer.callback_metrics:
            self._show(trainer)
        self._close()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def steps_of(trainer: lightning.Trainer) -> int:
    """Optimiser steps of the whole training."""
    return int(trainer.estimated_stepping_batches)


def samples_in(batch: Any) -> int:
    """Samples in a batch: its length."""
    return len(batch)
