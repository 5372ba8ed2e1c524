"""Supervisions over several views: two processes train what one trains, and each keeps a queue of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics

RECIPE = """# @package _global_
defaults:
  - /base/train
  - /head@model.heads.token_wise: token_wise
  - /supervision@objective.parts.image_text: image_text
  - override /model: declip_tiny
  - override /encoder@model.image: clip_vit_tiny
  - override /data: emoji_views_declip
  - override /objective: defilip
  - override /callbacks: ema
  - override /logger: csv
  - _self_
run: {name: ranks}
threads: 1
model:
  embed_dim: 16
  image: {width: 32, blocks: {depth: 2}}
  text: {width: 32, blocks: {depth: 2}}
  heads: {simsiam: null, token_wise: {embed_dim: 8}}
objective:
  parts:
    image_text: {image: first, text: augmented}
    nearest_neighbour: {queue: {size: 40}}
    simsiam: null       # batch norm of each process
    masked_words: null  # the mean of each process, as published
    token_wise: {top_k: 4}
  weights: {image_text: 0.5}
data:
  image_views: {first: {augment: []}, second: {augment: []}}  # drawn batch by batch, and two ranks have two batches
  train: {styles: [twemoji], image_size: 64}
  validation: null
optim:
  eps: 1.0e-3  # Adam's first steps would turn rounding into signs
  groups: {frozen: [heads.masked_words.*]}
trainer: {max_steps: 3, log_every_n_steps: 1, gradient_clip_val: 0.5}
callbacks:
  samples: null
  checkpoint: {every_n_steps: 1, keep: 9}
  clamp:
    _target_: multimodal_zoo.training.clamp.Clamp
    name: [logit_scale.weight, heads.token_wise.logit_scale.weight]
    lowest: 2.6595
    highest: null
"""
#: What does not depend on the queue; the whole loss does from the second step on.
PARTS = ("multi_view", "image_text", "token_wise", "logit_scale")
QUEUE = "parts.nearest_neighbour.queue.entries"


def launch(folder: Path, name: str, *overrides: str) -> subprocess.Popen[str]:
    program = str(Path(sys.executable).with_name("mmzoo"))
    words = [sys.executable, program, "train", "ranks.yaml", f"run.dir={name}", "data.batch_size=4", *overrides]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finished(process: subprocess.Popen[str]) -> None:
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output


def checkpoint(folder: Path, step: int) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"step_{step:08d}.ckpt", weights_only=True)


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_ranks_are_one_and_resume_with_their_own_queues(tmp_path: Path) -> None:
    (tmp_path / "ranks.yaml").write_text(RECIPE)
    runs = {name: launch(tmp_path, name, f"trainer={name}") for name in ("ddp_cpu", "fsdp_cpu")}
    everyones = "objective.parts.nearest_neighbour.queue.type=shared_queue"
    shared = launch(tmp_path, "shared", "trainer=ddp_cpu", everyones)

    from multimodal_zoo.commands.train import run

    run(compose("ranks", [f"run.dir={tmp_path / 'one'}", "data.batch_size=8"], folder=str(tmp_path)))
    one = read_metrics(tmp_path / "one" / "metrics.csv")
    for name, process in runs.items():
        finished(process)
        two = read_metrics(tmp_path / name / "metrics.csv")
        for step, key in [(0, "loss"), (0, "nearest_neighbour"), (0, "gradient_norm"), *((1, key) for key in PARTS)]:
            found, expected = two[step][f"train/{key}"], one[step][f"train/{key}"]
            assert found == pytest.approx(expected, rel=2e-5), (name, step, key)
        mine, theirs = (checkpoint(tmp_path / folder, 1)["state_dict"] for folder in (name, "one"))
        for key in (key for key in theirs if key.startswith("model.")):
            torch.testing.assert_close(mine[key], theirs[key], atol=2e-6, rtol=1e-5)
        # the first process enqueues the even pairs, the second the odd ones: each stored both views of its four
        entries = checkpoint(tmp_path / name, 1)["rank_buffers"][QUEUE]
        whole = theirs[f"objective.{QUEUE}"]
        assert len(entries) == 2
        own = torch.cat([entry[:8] for entry in entries])
        assert torch.cdist(own, whole[:16]).min(1).values.max() < 1e-4
        assert not torch.allclose(entries[0], entries[1])

    finished(shared)
    two = read_metrics(tmp_path / "shared" / "metrics.csv")
    for step in range(3):  # the queue of all processes holds what one process stores
        for key in ("loss", "nearest_neighbour"):
            assert two[step][f"train/{key}"] == pytest.approx(one[step][f"train/{key}"], rel=1e-4), (step, key)
    assert not checkpoint(tmp_path / "shared", 3)["rank_buffers"]

    resume = f"resume={tmp_path / 'ddp_cpu' / 'checkpoints' / 'step_00000001.ckpt'}"
    finished(launch(tmp_path, "resumed", "trainer=ddp_cpu", resume))
    same(checkpoint(tmp_path / "resumed", 3), checkpoint(tmp_path / "ddp_cpu", 3))


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Weights, average, and every rank's queue, bit for bit."""
    for key, tensor in other["state_dict"].items():
        assert torch.equal(one["state_dict"][key], tensor), key
    for key, tensor in other["ema"]["weights"].items():
        assert torch.equal(one["ema"]["weights"][key], tensor), key
    for key, tensors in other["rank_buffers"].items():
        assert all(torch.equal(a, b) for a, b in zip(one["rank_buffers"][key], tensors, strict=True)), key
