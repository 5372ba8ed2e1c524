"""EVA-CLIP's recipe on a small model and embedded data: the command, resuming, a frozen tower."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.zoo import build_model

SMALL = [
    "model=eva_clip_tiny",
    "data=emoji",
    "data.train.styles=[twemoji]",
    "data.train.image_size=48",
    "data.validation=null",
    "data.augment=[]",
    "initial_weights=null",
    "model.image.blocks.depth=2",
    "model.text.blocks.depth=1",
    "trainer.num_nodes=1",
    "trainer.precision=32-true",
    "trainer.log_every_n_steps=1",
    "schedule.warmup=1",
    "trainer.max_steps=3",
    "callbacks.samples=null",
    "logger=csv",
    "threads=1",
]
ONE = [*SMALL, "trainer=cpu", "data.batch_size=8"]


def train(folder: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """Train `eva_clip/b16` in this process; the exported weights."""
    run(compose("eva_clip/b16", [*ONE, f"run.dir={folder}", *overrides]))
    return load_file(folder / "model" / "model.safetensors")


def losses(folder: Path) -> dict[int, float]:
    return {int(row["step"]): row["train/loss"] for row in read_metrics(folder / "metrics.csv") if "train/loss" in row}


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    dropping = "model.image.patch_dropout.rate=0.5"  # its draws go on where they stopped
    whole = train(tmp_path / "whole", dropping, "callbacks.checkpoint.every_n_steps=2")
    assert sorted(losses(tmp_path / "whole")) == [0, 1, 2]
    stopped = tmp_path / "whole" / "checkpoints" / "step_00000002.ckpt"
    resumed = train(tmp_path / "resumed", dropping, f"resume={stopped}")
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name
    assert losses(tmp_path / "resumed")[2] == losses(tmp_path / "whole")[2]


def test_a_frozen_image_tower(tmp_path: Path) -> None:
    frozen = "optim.groups.frozen=[image.*]"
    end = train(tmp_path, frozen, "trainer.max_steps=1")
    start = build_model(compose("eva_clip/b16", ONE).model, seed=0).state_dict()
    for name, tensor in start.items():
        moves = not name.startswith("image.")
        assert torch.equal(end[name], tensor) != moves, name
