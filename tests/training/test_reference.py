"""Training on preferences: the frozen reference, and what of it is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.data.preference_pairs import write_preferences
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.inference.preferences import add_reference
from multimodal_zoo.training.folder import find_checkpoint
from multimodal_zoo.training.guard import NonFiniteLoss, replay
from multimodal_zoo.training.reference import reference_model
from multimodal_zoo.zoo import build_model

RECIPE = """# @package _global_
defaults:
  - /base/train
  - override /model: emu3_tiny
  - override /data: preference
  - override /objective: dpo
  - _self_
run: {name: preferences}
threads: 1
logger: null
reference: {weights: "${initial_weights}"}
data: {batch_size: 4, workers: 0, train: {table: preferences/pairs.jsonl}, batching: {context_length: 128}}
model:
  vision_tokenizer: null  # the data are codes
  decoder:
    width: 32
    blocks: {depth: 2, checkpoint: around_attention, block: {attention: {dropout: 0.0}, mlp: {hidden: 48}}}
optim: {lr: 1.0e-2, eps: 1.0e-3}  # Adam's first steps would turn rounding into signs
schedule: {warmup: 0}
trainer: {max_steps: 3, log_every_n_steps: 1}
callbacks: {samples: null}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe, and pairs of pictures of 4 to 36 codes."""
    draw = np.random.default_rng(0)
    pairs = [
        (f"picture {number}", *(draw.integers(0, 512, tuple(draw.integers(2, 7, 2))) for _ in range(2)))
        for number in range(16)
    ]
    write_preferences(tmp_path / "preferences", pairs)
    (tmp_path / "tuning.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(folder: Path, *words: str) -> list[dict[str, float]]:
    """Train in this process; the rows of each step."""
    run(compose("tuning", list(words), folder=str(folder)))
    name = next(word.partition("=")[2] for word in words if word.startswith("run.dir="))
    rows = read_metrics(folder / name / "metrics.csv")
    return [row for row in rows if "train/gradient_norm" in row]


def test_rewards_begin_at_the_start_and_grow(folder: Path) -> None:
    rows = train(folder, "run.dir=one", "data.batch_size=8")
    assert rows[0]["train/preference_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert rows[0]["train/margin"] == pytest.approx(0, abs=1e-3)
    assert rows[-1]["train/chosen_reward"] > rows[0]["train/chosen_reward"] + 1e-3
    checkpoint = find_checkpoint("last", folder / "one")
    assert checkpoint is not None
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(name.startswith("model.decoder.") for name in state)  # no reference in it


def test_a_resumed_run_counts_from_the_same_reference(folder: Path) -> None:
    first = train(folder, "run.dir=start", "trainer.max_steps=1")
    start = "initial_weights=start/model"
    whole = train(folder, "run.dir=whole", start)
    assert first[0]["train/margin"] == pytest.approx(0, abs=1e-3)
    assert whole[0]["train/margin"] == pytest.approx(0, abs=1e-3)
    run(compose("tuning", ["run.dir=whole", start, "resume=last", "trainer.max_steps=4"], folder=str(folder)))
    last = [row for row in read_metrics(folder / "whole" / "metrics.csv") if "train/gradient_norm" in row][-1]
    assert last["step"] == 3
    assert abs(last["train/chosen_reward"]) > 1e-3  # not counted from where it went on


def test_known_log_probabilities_stand_for_the_reference(folder: Path) -> None:
    train(folder, "run.dir=start", "trainer.max_steps=1")
    start = "initial_weights=start/model"
    asked = train(folder, "run.dir=asked", start)
    table = add_reference(zoo.from_pretrained(folder / "start" / "model"), "preferences/pairs.jsonl", batch_size=3)
    before = table.read_bytes()
    with pytest.raises(ValueError, match="set reference=null"):
        train(folder, "run.dir=both", start)
    known = train(folder, "run.dir=known", start, "reference=null")
    for mine, theirs in zip(asked, known, strict=True):
        for key in ("train/loss", "train/margin", "train/chosen_reward", "train/gradient_norm"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-4)
    add_reference(zoo.from_pretrained(folder / "asked" / "model"), table)
    assert table.read_bytes() != before  # of another reference
    with pytest.raises(ValueError, match="batch_size is 0"):
        add_reference(zoo.from_pretrained(folder / "start" / "model"), table, batch_size=0)


def test_a_failed_step_is_computed_again(folder: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"batch of 2: 000000"):
        train(folder, "run.dir=failing", "optim.lr=1e30", "data.batch_size=2", "optim.eps=1e-30")
    (path,) = (folder / "failing" / "failure").glob("*.pt")
    config = torch.load(path, weights_only=True)["config"]
    model = build_model({**config["model"], "processor": None})
    loss = replay(path, model=model)["loss"]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients
    assert not all(torch.isfinite(tensor).all() for tensor in (loss, *gradients))


def test_references_that_cannot_be(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"reference\.wieghts: no such key; it takes weights"):
        reference_model({"wieghts": "x"}, {})
    with pytest.raises(ValueError, match=r"reference\.weights is null, but training starts from initial_weights"):
        reference_model({"weights": None}, {"initial_weights": {"decoder": "x"}})
    with pytest.raises(ValueError, match=r"set reference\.weights"):
        train(folder, "run.dir=none", "reference=null")
