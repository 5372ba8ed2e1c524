"""Training a tokenizer against a discriminator: its own steps, exact resuming, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics

RECIPE = """# @package _global_
defaults:
  - /emu3/emoji_tokenizer
  - override /objective: vision_tokenizer_gan
  - _self_
run: {name: ranks}
threads: 1
logger: null
model:
  encoder: {multipliers: [1, 1], attention_levels: [1], depth: 1, temporal_factor: 2}
  quantizer: {codebook_size: 16, revive_below: 0.0}
objective:
  perceptual: null
  adversarial: {start: 1, discriminator: {pictures: {width: 32, depth: 1}, clips: {width: 32, depth: 1}}}
data:
  augment: []  # whole-batch augmentation draws per batch, and two ranks have two batches
  train: {styles: [twemoji], image_size: 16}
  validation: null
optim: {eps: 1.0e-3}  # Adam's first steps would turn rounding into signs
trainer: {max_steps: 3, log_every_n_steps: 1, gradient_clip_val: 0.5}
evaluation: null
"""
FIGURES = ("train/loss", "train/gradient_norm", "train/reconstruction", "train/perplexity")
PLAYED = ("train/adversarial", "train/adversarial_weight", "train/discriminator", "train/score_given")


def train(folder: Path, name: str, *words: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Rows of the metrics and the state of the last checkpoint."""
    run(compose("ranks", [f"run.dir={folder / name}", *words], folder=str(folder)))
    return results(folder / name)


def results(place: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    saved = torch.load(place / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return read_metrics(place / "metrics.csv"), saved


@pytest.mark.slow
def test_a_run_goes_on_exactly_and_counts_its_own_steps(tmp_path: Path) -> None:
    (tmp_path / "ranks.yaml").write_text(RECIPE)
    words = ["data.batch_size=2", "callbacks.checkpoint.every_n_steps=2", "schedule.warmup=0"]
    rows, whole = train(tmp_path, "whole", *words)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(name not in rows[0] for name in PLAYED)  # the discriminator starts at step 1
    assert all(name in row for row in rows[1:] for name in PLAYED)
    cut = tmp_path / "cut" / "checkpoints"
    cut.mkdir(parents=True)
    (cut / "step_00000002.ckpt").write_bytes((tmp_path / "whole/checkpoints/step_00000002.ckpt").read_bytes())
    (cut / "last.ckpt").symlink_to("step_00000002.ckpt")
    again, resumed = train(tmp_path, "cut", *words, "resume=auto")
    assert [row["step"] for row in again] == [2]
    for name in (*FIGURES, *PLAYED):
        assert again[0][name] == rows[2][name], name
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())
    assert load_file(tmp_path / "whole" / "model" / "model.safetensors").keys().isdisjoint({"objective"})


def test_gradients_cannot_be_accumulated_nor_scaled(tmp_path: Path) -> None:
    (tmp_path / "ranks.yaml").write_text(RECIPE)
    with pytest.raises(ValueError, match=r"trainer.accumulate_grad_batches is 2"):
        train(tmp_path, "two", "trainer.accumulate_grad_batches=2", "data.batch_size=2")
