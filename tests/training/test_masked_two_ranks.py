"""Masked image modelling: two processes train what one trains, replicated or sharded, whatever is masked on which."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics

RECIPE = """# @package _global_
defaults:
  - /eva_clip/mim_tiny
  - _self_
run: {name: masked_ranks}
threads: 1
logger: null
teacher: {weights: random, model: {image: {blocks: {depth: 1}}, text: {blocks: {depth: 1}}}}
model: {image: {blocks: {depth: 2}}}
data:
  augment: []  # whole-batch augmentation draws per batch, and two ranks have two batches
  train: {styles: [twemoji], image_size: 48}
  validation: null
optim: {eps: 1.0e-3}  # Adam's first steps would turn rounding into signs
trainer: {max_steps: 3, log_every_n_steps: 1, gradient_clip_val: 0.5}
evaluation: null
"""


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    (tmp_path / "ranks.yaml").write_text(RECIPE)
    program = [sys.executable, str(Path(sys.executable).with_name("mmzoo")), "train", "ranks.yaml", "data.batch_size=4"]
    runs = {
        trainer: subprocess.Popen(
            [*program, f"trainer={trainer}", f"run.dir={trainer}"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for trainer in ("ddp_cpu", "fsdp_cpu")
    }
    run(compose("ranks", [f"run.dir={tmp_path / 'one'}", "data.batch_size=8"], folder=str(tmp_path)))
    one = read_metrics(tmp_path / "one" / "metrics.csv")
    weights = load_file(tmp_path / "one" / "model" / "model.safetensors")
    for trainer, process in runs.items():
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        for mine, theirs in zip(one, read_metrics(tmp_path / trainer / "metrics.csv"), strict=True):
            for key in ("train/loss", "train/gradient_norm", "train/masked_share"):
                assert theirs[key] == pytest.approx(mine[key], rel=2e-5), (trainer, key)
        found = load_file(tmp_path / trainer / "model" / "model.safetensors")
        assert found.keys() == weights.keys()
        for name, tensor in weights.items():
            assert_close(found[name], tensor, atol=2e-6, rtol=1e-5)
