"""Checkpoints that a kill can never leave half written."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from multimodal_zoo.files import flush
from multimodal_zoo.training.preemption import Preemption, stop
from multimodal_zoo.training.steps import StepEnds

LAST = "last.ckpt"
#: How names of unfinished checkpoints end.
PARTIAL = ".partial"


class Streamed(TorchCheckpointIO):
    """Writes a checkpoint straight to its file; Lightning's own is made in memory, then under `/tmp`, then moved.

    Files of other callbacks, whose folders may not be there or lie on a server, are written as Lightning does.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write; `Checkpoints` gives a name that no reader takes for a checkpoint, and renames."""
        if not str(path).endswith(PARTIAL):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with Path(path).open("wb") as file:
            torch.save(checkpoint, file)


class Checkpoints(Checkpoint):
    """Saves `checkpoints/step_<n>.ckpt` every so many optimiser steps and at the end, and points `last.ckpt` at it.

    A file is written under another name and renamed when it is complete, so every `*.ckpt` can be resumed from. SIGTERM
    to any of the processes saves the step that is under way and ends the run.

    Args:
        every_n_steps: 0 saves at the end only.
        keep: how many to keep, newest first.
    """

    def __init__(self, every_n_steps: int = 500, keep: int = 2) -> None:
        if every_n_steps < 0 or keep < 1:
            raise ValueError(
                f"callbacks.checkpoint: every_n_steps is {every_n_steps} and keep {keep}; need >= 0 and >= 1"
            )
        self.every_n_steps = every_n_steps
        self.keep = keep
        self._saved_step = -1
        self._ends = StepEnds()
        self._preemption = Preemption()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Let files be written by `Streamed`, unless the recipe has chosen another writer."""
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = Streamed()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A resumed step is saved already."""
        self._saved_step = trainer.global_step
        self._ends.begin(trainer)
        self._preemption.watch()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, or when the run was asked to stop."""
        if not self._ends.over(trainer):  # gradients of an unfinished step are not saved
            return
        stopping = self._preemption.agreed(trainer.strategy.root_device)
        if stopping or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self.save(trainer)
        if stopping:
            stop(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Save the last step."""
        self.save(trainer)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Say how to go on after Ctrl-C or a failure."""
        place = Path(trainer.default_root_dir)
        last = place / "checkpoints" / LAST
        if trainer.is_global_zero and last.exists():
            print(
                f"stopped at step {trainer.global_step}; newest checkpoint: {last.resolve().name}. "
                f"Continue with the same command and run.dir={place} resume=auto",
                file=sys.stderr,
            )

    def save(self, trainer: lightning.Trainer) -> None:
        """Save the current step unless it is saved; every rank must call it."""
        step = trainer.global_step
        if step == self._saved_step:
            return
        self._saved_step = step
        folder = Path(trainer.default_root_dir) / "checkpoints"
        final = folder / f"step_{step:08d}.ckpt"
        partial = folder / f".{final.name}{PARTIAL}"  # not `atomic_file`: all ranks write to this one name
        if trainer.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            _remove(partial)
        trainer.save_checkpoint(partial)  # collective: sharded strategies gather here
        if trainer.is_global_zero:
            if partial.is_file():
                flush(partial)
            if final.is_dir() or partial.is_dir():
                _remove(final)  # a file is replaced in one step
            os.replace(partial, final)
            point(folder / LAST, final.name)
            # later ones are of a run that was taken up again before them: they stay until it comes by
            kept = sorted(path for path in folder.glob("step_*.ckpt") if path.name <= final.name)
            for old in kept[: -self.keep]:
                _remove(old)
        trainer.strategy.barrier("Checkpoints.save")  # no process goes on, or looks for the file, before it is there


def point(link: Path, target: str) -> None:
    """Make `link` name its sibling `target`, atomically; a copy where the file system has no links."""
    partial = link.with_name(f".{link.name}.partial")
    _remove(partial)
    try:
        partial.symlink_to(target)
    except OSError:
        source = link.with_name(target)
        shutil.copytree(source, partial) if source.is_dir() else shutil.copyfile(source, partial)
        _remove(link)
    os.replace(partial, link)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
