"""Moments of a training run at which it is killed, as callbacks, and what the run that goes on must be equal to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from omegaconf import DictConfig
from pair import watched_by

from killing import kill_at_call, kill_once_written, killed
from multimodal_zoo.commands.train import run


def killed_run(config: DictConfig, moment: Callback) -> None:
    """Train in a process of its own that is killed.

    Args:
        config: a composed recipe.
        moment: `Amid` or `WhileSaving`.

    Raises:
        AssertionError: the run ended otherwise.
    """

    def train() -> None:
        with watched_by(moment):
            run(config)

    killed(train)


class Amid(Callback):
    """Kills anywhere inside the steps behind a saved one.

    Args:
        step: optimiser steps that are over, and saved.
        calls: of functions from there on.
    """

    def __init__(self, step: int, calls: int) -> None:
        self.step, self.calls = step, calls

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            kill_at_call(self.calls)


class WhileSaving(Callback):
    """Kills as soon as the first bytes of a checkpoint are in its file.

    Args:
        step: of the checkpoint.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        if trainer.global_step == self.step:
            kill_once_written(partial_of(Path(trainer.default_root_dir), self.step), every=16)


def partial_of(folder: Path, step: int) -> Path:
    """The file that a checkpoint of a run is written to before it has its name."""
    return folder / "checkpoints" / f".step_{step:08d}.ckpt.partial"


def assert_same(one: object, other: object, path: str) -> None:
    """Two checkpoints, or parts of them, are bit-equal, however deep."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_same(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{path}[{number}]")
    else:
        assert one == other, path
