"""EVE sharded over two processes, often with texts alone on one: the one-process run, resumed exactly too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from eve_stages import TEACHER, V1, V2, V2_DECODER, conversations, table
from safetensors.torch import load_file
from torch.testing import assert_close

from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.folder import find_checkpoint

STEPS = 6
COMMON = [
    *("initial_weights=null", "data.workers=0", "threads=1", "logger=csv", "schedule.warmup=0", "optim.lr=1.0e-3"),
    *("trainer.devices=2", "trainer.num_nodes=1", f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=1"),
    *("trainer.accumulate_grad_batches=1", "callbacks.checkpoint.every_n_steps=2", "callbacks.checkpoint.keep=9"),
    *("~data.order.batch_size", "~data.order.ranks", "~data.order.accumulation", "data.order.type=shuffled_order"),
    "optim.eps=1.0e-3",  # Adam's first steps would turn rounding into signs
]
MODELS = {"sft": [*V1, *TEACHER], "v2_stage3": [*V2, *V2_DECODER]}
SHARDED = ["trainer=fsdp_cpu", "data.batch_size=1"]
ALONE = ["trainer=cpu", "trainer.devices=1", "data.batch_size=2"]
NAMES = ("train/loss", "train/gradient_norm", "train/accuracy")


def started(name: str, words: list[str], folder: Path) -> subprocess.Popen[str]:
    """A run of its own processes."""
    return subprocess.Popen(
        [sys.executable, str(Path(sys.executable).with_name("mmzoo")), "train", f"eve/{name}", *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> None:
    """Wait for a run that must succeed."""
    output = process.communicate(timeout=400)[0]
    assert process.returncode == 0, output


def rows(folder: Path) -> list[dict[str, float]]:
    """What was logged of each step."""
    return [row for row in read_metrics(folder / "metrics.csv") if "train/gradient_norm" in row]


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_are_one_and_resume(name: str, tmp_path: Path) -> None:
    records = conversations(tmp_path, count=16, text_share=0.5)
    assert 4 <= sum("image" in record for record in records) <= 12
    words = [*MODELS[name], *table(tmp_path, records), *COMMON]
    two = started(name, [*words, *SHARDED, "run.dir=two"], tmp_path)
    run(compose(f"eve/{name}", [*words, *ALONE, f"run.dir={tmp_path / 'one'}"]))
    finished(two)
    one, both = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(both) == STEPS
    keys = (*NAMES, "train/alignment_loss", "train/language_loss") if name == "sft" else NAMES
    for mine, theirs in zip(one, both, strict=True):
        for key in keys:
            assert theirs[key] == pytest.approx(mine[key], rel=5e-5, abs=1e-6), key
    weights = load_file(tmp_path / "one" / "model" / "model.safetensors")
    found = load_file(tmp_path / "two" / "model" / "model.safetensors")
    assert found.keys() == weights.keys()
    for key, tensor in weights.items():
        assert_close(found[key], tensor, atol=5e-6, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")

    checkpoint = find_checkpoint("last", tmp_path / "two")
    assert checkpoint is not None
    middle = checkpoint.with_name("step_00000004.ckpt")
    finished(started(name, [*words, *SHARDED, f"resume={middle}", "run.dir=again"], tmp_path))
    again = load_file(tmp_path / "again" / "model" / "model.safetensors")
    assert all(bool((again[key] == tensor).all()) for key, tensor in found.items())
    for mine, theirs in zip(rows(tmp_path / "again"), both[4:], strict=True):
        assert mine["train/loss"] == theirs["train/loss"]
