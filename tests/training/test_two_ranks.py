"""Two processes train what one trains on the same global batches, replicated or sharded."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics

RECIPE = """# @package _global_
defaults:
  - /base/train
  - override /model: clip_tiny
  - override /encoder@model.image: clip_vit_tiny
  - override /data: emoji
  - override /callbacks: ema
  - override /logger: csv
  - _self_
run: {name: ranks}
threads: 1
model: {embed_dim: 16, image: {width: 32, blocks: {depth: 2}}, text: {width: 32, blocks: {depth: 2}}}
data:
  augment: []  # whole-batch augmentation draws per batch, and two ranks have two batches
  train: {styles: [twemoji], image_size: 64}
  validation: null
optim: {eps: 1.0e-3}  # Adam's first steps would turn rounding into signs
trainer: {max_steps: 3, log_every_n_steps: 1, gradient_clip_val: 0.5}
callbacks: {samples: null}
"""


def launch(folder: Path, trainer: str) -> subprocess.Popen[str]:
    """Lightning's own launcher starts the second rank by running the same command again."""
    program = str(Path(sys.executable).with_name("mmzoo"))
    words = [sys.executable, program, "train", "ranks.yaml", f"trainer={trainer}", f"run.dir={trainer}"]
    return subprocess.Popen(
        [*words, "data.batch_size=4"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    (tmp_path / "ranks.yaml").write_text(RECIPE)
    runs = {trainer: launch(tmp_path, trainer) for trainer in ("ddp_cpu", "fsdp_cpu")}

    from multimodal_zoo.commands.train import run

    run(compose("ranks", [f"run.dir={tmp_path / 'one'}", "data.batch_size=8"], folder=str(tmp_path)))
    one = results(tmp_path / "one")
    assert [row["step"] for row in one[0]] == [0, 1, 2]
    for trainer, process in runs.items():
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        two = results(tmp_path / trainer)
        for mine, theirs in zip(one[0], two[0], strict=True):
            for key in ("train/loss", "train/gradient_norm", "train/logit_scale"):
                assert theirs[key] == pytest.approx(mine[key], rel=2e-5), (trainer, key)
        for expected, found in zip(one[1:], two[1:], strict=True):
            assert expected.keys() == found.keys()
            for name, tensor in expected.items():
                torch.testing.assert_close(found[name], tensor, atol=2e-6, rtol=1e-5)


def results(folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Rows of the CSV, exported (averaged) weights, and the weights in the checkpoint."""
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return read_metrics(folder / "metrics.csv"), load_file(folder / "model" / "model.safetensors"), saved
