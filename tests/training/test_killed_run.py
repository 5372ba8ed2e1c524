"""The command itself: killed without warning, resumed in the same folder, and equal to a run that was never killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from moments import assert_same

from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics

STEPS, EVERY = 24, 6
RECIPE = """# @package _global_
defaults:
  - /base/train
  - override /model: clip_tiny
  - override /encoder@model.image: clip_vit_tiny
  - override /data: emoji
  - override /callbacks: ema
  - override /logger: csv
  - _self_
run: {name: killed}
threads: 1
model:
  embed_dim: 16
  image: {width: 32, blocks: {depth: 2}}
  text: {width: 32, blocks: {depth: 2}}
data:
  batch_size: 8
  train: {styles: [twemoji], image_size: 32}
trainer:
  max_steps: 24
  log_every_n_steps: 1
  val_check_interval: 4
  check_val_every_n_epoch: null
  limit_val_batches: 1
callbacks: {checkpoint: {every_n_steps: 6}, samples: {every_n_steps: 6, gallery: 8, pictures: 2}}
"""


def command(recipe: Path, *overrides: str) -> subprocess.Popen[str]:
    words = [sys.executable, str(Path(sys.executable).with_name("mmzoo")), "train", str(recipe), *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, cwd=recipe.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def steps_in(path: Path) -> int:
    return max((int(row["step"]) for row in read_metrics(path)), default=-1) if path.exists() else -1


def losses(path: Path) -> dict[float, float]:
    return {row["step"]: row["train/loss"] for row in read_metrics(path) if "train/loss" in row}


@pytest.mark.multiprocess
@pytest.mark.slow
def test_kill_and_resume_equal_an_uninterrupted_run(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = command(recipe, f"run.dir={killed}")
    deadline = time.monotonic() + 240
    last = killed / "checkpoints" / "last.ckpt"
    while not (last.exists() and steps_in(killed / "metrics.csv") >= EVERY):  # a step beyond the checkpoint is lost
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no checkpoint in time"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert last.resolve().name < f"step_{STEPS:08d}.ckpt", "it was killed too late to tell anything"

    from multimodal_zoo.commands.train import run

    run(compose("tiny", [f"run.dir={whole}"], folder=str(tmp_path)))

    process = command(recipe, f"run.dir={killed}", "resume=auto")
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert "continuing from" in output

    expected = losses(whole / "metrics.csv")
    assert sorted(expected) == list(range(STEPS))
    assert losses(killed / "metrics.csv") == expected
    ends = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (killed, whole)]
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "random_states", "ema"):
        assert_same(ends[0][part], ends[1][part], part)
    assert ends[0]["ImageTextData"] == ends[1]["ImageTextData"]
    assert (killed / "model" / "model.safetensors").read_bytes() == (whole / "model" / "model.safetensors").read_bytes()
    for name in ("config.yaml", "report.html", "samples/step_00000006.png", "samples/step_00000024.png"):
        assert (killed / name).exists(), name
