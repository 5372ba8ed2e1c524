"""A detector over two processes is the one-process run on the same scenes, and goes on exactly where it was cut off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.data.scenes.generate import Settings, generate
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.folder import find_checkpoint

STEPS = 4
GRID = "{type: voxel_grid, counts: [20, 20, 2], size: [5.0, 5.0, 3.0], centre: [0, 0, -1]}"
SMALL = [
    *("data.train.scenes=2", "data.train.frames=4", "data.train.width=200", "data.train.height=112"),
    *("model.processor.view.size=[48,128]", f"model.lift.grids=[{GRID}]", "model.bev_encoder.in_channels=128"),
]
COMMON = [
    *SMALL,
    *("data.workers=0", "threads=1", "logger=csv", "schedule.warmup=0", "optim.lr=1.0e-3", "optim.eps=1.0e-3"),
    *(f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=1", "trainer.val_check_interval=100", "evaluation=null"),
    *("callbacks.checkpoint.every_n_steps=2", "callbacks.checkpoint.keep=9", "trainer.num_nodes=1"),
]
TWO = ["trainer=ddp_cpu", "trainer.devices=2", "data.batch_size=1"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two short drives."""
    folder = tmp_path_factory.mktemp("scenes") / "drawn"
    generate(folder, Settings(scenes=2, frames=4, width=200, height=112, seed=0, rate=2))
    return f"data.train.folder={folder}"


def started(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """The command."""
    return subprocess.Popen(
        [sys.executable, str(Path(sys.executable).with_name("mmzoo")), "train", "fast_bev/synthetic", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    """Wait for a run that must succeed."""
    output = process.communicate(timeout=900)[0]
    assert process.returncode == 0, output


def rows(folder: Path) -> list[dict[str, float]]:
    """What was logged of each step."""
    return [row for row in read_metrics(folder / "metrics.csv") if "train/gradient_norm" in row]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of the trained model."""
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_processes_are_one_and_resume(scenes: str, tmp_path: Path) -> None:
    words = [*COMMON, scenes]
    two = started([*words, *TWO, "run.dir=two"], tmp_path)
    alone = ["trainer=cpu", "trainer.devices=1", "data.batch_size=2"]
    run(compose("fast_bev/synthetic", [*words, *alone, f"run.dir={tmp_path / 'one'}"]))
    finished(two)
    one, both = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(both) == STEPS
    for mine, theirs in zip(one, both, strict=True):
        assert theirs["train/loss"] == pytest.approx(mine["train/loss"], rel=2e-4)
        assert theirs["train/gradient_norm"] == pytest.approx(mine["train/gradient_norm"], rel=2e-3)
    found = weights(tmp_path / "two")
    for key, tensor in weights(tmp_path / "one").items():
        assert_close(found[key], tensor, atol=2e-5, rtol=2e-3, msg=lambda text, key=key: f"{key}: {text}")
    checkpoint = find_checkpoint("last", tmp_path / "two")
    assert checkpoint is not None
    middle = checkpoint.with_name("step_00000002.ckpt")
    finished(started([*words, *TWO, f"resume={middle}", "run.dir=again"], tmp_path))
    again = weights(tmp_path / "again")
    assert all(bool((again[key] == tensor).all()) for key, tensor in found.items())
