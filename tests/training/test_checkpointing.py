"""Which checkpoints stay, and that no process goes on before one is in its place."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from multimodal_zoo.training.checkpointing import Checkpoints


def at_step(folder: Path, step: int, first: bool = True) -> Any:
    """What saving asks a trainer for; `waited` notes what the other processes find when they go on."""
    trainer: Any = SimpleNamespace(global_step=step, default_root_dir=str(folder), is_global_zero=first, waited=[])
    trainer.save_checkpoint = lambda path: Path(path).write_text(f"{step}") if first else None
    last = folder / "checkpoints" / "last.ckpt"
    trainer.strategy = SimpleNamespace(barrier=lambda name: trainer.waited.append(last.exists() and last.read_text()))
    return trainer


def names(folder: Path) -> list[str]:
    """Of all checkpoints but the link."""
    return sorted(path.name for path in (folder / "checkpoints").glob("step_*"))


def test_a_run_taken_up_before_later_checkpoints_keeps_what_it_saves(tmp_path: Path) -> None:
    for step in (400, 500):
        Checkpoints(keep=2).save(at_step(tmp_path, step))
    again = Checkpoints(keep=2)
    again.save(at_step(tmp_path, 200))
    assert (tmp_path / "checkpoints" / "last.ckpt").read_text() == "200"
    assert names(tmp_path) == ["step_00000200.ckpt", "step_00000400.ckpt", "step_00000500.ckpt"]
    for step in (300, 400, 450):
        again.save(at_step(tmp_path, step))
    assert names(tmp_path) == ["step_00000400.ckpt", "step_00000450.ckpt", "step_00000500.ckpt"]


def test_every_process_waits_until_the_checkpoint_is_in_place(tmp_path: Path) -> None:
    first, second = at_step(tmp_path, 3), at_step(tmp_path, 3, first=False)
    Checkpoints().save(second)
    assert second.waited == [False]  # it came here first: a barrier lets it on with the first process only
    Checkpoints().save(first)
    assert first.waited == ["3"]


def test_other_writers_of_checkpoints_still_get_their_folders(tmp_path: Path) -> None:
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(checkpoint_io=TorchCheckpointIO()))
    Checkpoints().setup(trainer, SimpleNamespace(), "fit")  # type: ignore[arg-type]
    trainer.strategy.checkpoint_io.save_checkpoint({"step": 2}, tmp_path / "new" / "own.ckpt")
    assert torch.load(tmp_path / "new" / "own.ckpt") == {"step": 2}
