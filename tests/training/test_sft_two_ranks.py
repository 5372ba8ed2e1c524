"""Fine-tuning a decoder on pictures of many sizes: two processes train what one trains, replicated or sharded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.folder import find_checkpoint

RECIPE = """# @package _global_
defaults:
  - /base/train
  - override /model: emu3_tiny
  - override /data: sft
  - override /objective: next_token
  - override /callbacks: default
  - _self_
run: {name: sft_ranks}
threads: 1
logger: null
model:
  vision_tokenizer: null  # the data are codes
  decoder:
    width: 32
    blocks: {depth: 2, checkpoint: around_attention, block: {attention: {dropout: 0.0}, mlp: {hidden: 48}}}
optim: {eps: 1.0e-3}  # Adam's first steps would turn rounding into signs
trainer: {max_steps: 3, log_every_n_steps: 1, gradient_clip_val: 0.5}
callbacks: {samples: null}
"""
DATA = """
type: token_data
train: {type: emu3_features, table: list/train.json}
validation: null
batch_size: 4
workers: 0
seed: ${seed}
order: {type: shuffled_order}
layout: {type: text_to_image_layout, captions: {type: text_caption}, null_prompt_probability: 0.3, end: false}
weights: {type: token_weights, text: 0.0, vision: 1.0, layout: 0.0, prompt: 0.0, end: 0.0}
batching: {type: padded_batches, context_length: 128, too_long: error}
"""
SAMPLES = 32
#: What each of two processes does to see the samples that one process sees in a batch of eight.
RANKS = {
    "ddp_cpu": ["data.batch_size=2", "trainer.accumulate_grad_batches=2"],
    "fsdp_cpu": ["data.batch_size=4"],
}


def write(folder: Path) -> None:
    """The recipe, its data node, and pictures of 4 to 49 codes in the published layout."""
    for name in ("data", "list", "feature"):
        (folder / name).mkdir()
    (folder / "ranks.yaml").write_text(RECIPE)
    (folder / "data" / "sft.yaml").write_text(DATA)
    draw = np.random.default_rng(0)
    names = [f"{number}.pth" for number in range(SAMPLES)]
    for name in names:
        codes = draw.integers(0, 512, tuple(draw.integers(2, 8, 2)))
        torch.save(
            {"name": name, "images": codes, "texts": "red " * int(draw.integers(1, 9))}, folder / "feature" / name
        )
    listed = {"prefix": str(folder / "feature"), "path_list": names}
    (folder / "list" / "train.json").write_text(json.dumps(listed))


@pytest.mark.multiprocess
@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The batches of a step differ in their numbers of tokens, over ranks and over accumulated batches."""
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    program = [sys.executable, str(Path(sys.executable).with_name("mmzoo")), "train", "ranks.yaml"]
    runs = {
        trainer: subprocess.Popen(
            [*program, f"trainer={trainer}", f"run.dir={trainer}", *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for trainer, words in RANKS.items()
    }
    run(compose("ranks", [f"run.dir={tmp_path / 'one'}", "data.batch_size=8"], folder=str(tmp_path)))
    one = read_metrics(tmp_path / "one" / "metrics.csv")
    weights = load_file(tmp_path / "one" / "model" / "model.safetensors")
    assert [row["step"] for row in one] == [0, 1, 2]
    for trainer, process in runs.items():
        output = process.communicate(timeout=300)[0]
        assert process.returncode == 0, output
        rows = [row for row in read_metrics(tmp_path / trainer / "metrics.csv") if "train/gradient_norm" in row]
        whole = ("train/loss", "train/vision_loss") if trainer == "fsdp_cpu" else ()  # else the last batch's alone
        for mine, theirs in zip(one, rows, strict=True):
            for key in ("train/gradient_norm", *whole):
                assert theirs[key] == pytest.approx(mine[key], rel=2e-5), (trainer, key)
        found = load_file(tmp_path / trainer / "model" / "model.safetensors")
        assert found.keys() == weights.keys()
        for name, tensor in weights.items():
            assert_close(found[name], tensor, atol=2e-6, rtol=1e-5, msg=f"{trainer} {name}")
    loads_on_one_process(tmp_path, weights)


def loads_on_one_process(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """What two processes saved, the checkpoint and the exported model, is whole."""
    checkpoint = find_checkpoint("last", folder / "fsdp_cpu")
    assert checkpoint is not None
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    exported = zoo.from_pretrained(str(folder / "fsdp_cpu" / "model")).state_dict()
    for name, tensor in weights.items():
        assert_close(saved[f"model.{name}"], tensor, atol=2e-6, rtol=1e-5)
        assert_close(exported[name], tensor, atol=2e-6, rtol=1e-5)
