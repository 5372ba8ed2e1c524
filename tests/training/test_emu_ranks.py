"""Emu and Emu2 over two processes, often with words alone on one: the one-process run, resumed exactly too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from emu_stages import EMU, EMU2, conversations, table
from safetensors.torch import load_file
from torch import Tensor
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
    *("data=emu_conversations", "data.learn.pictures=said", "data.batching.batches_per_epoch=4"),
    "optim.eps=1.0e-3",  # Adam's first steps would turn rounding into signs
]
#: Stage -> small models, and what each of two processes does to see what one sees.
RUNS = {
    "pretrain": (EMU, ["trainer=fsdp_cpu"]),
    "emu2_stage2": (EMU2, ["trainer=ddp_cpu"]),
    "finetune": ([*EMU2, "model.decoder.blocks.adapter.dropout=0.0"], ["trainer=fsdp_cpu"]),
}
ALONE = ["trainer=cpu", "trainer.devices=1", "data.batch_size=2"]
NAMES = ("train/loss", "train/gradient_norm", "train/language_loss", "train/regression_loss", "train/target_deviation")


def started(name: str, words: list[str], folder: Path) -> subprocess.Popen[str]:
    """The command."""
    return subprocess.Popen(
        [sys.executable, str(Path(sys.executable).with_name("mmzoo")), "train", f"emu/{name}", *words],
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


@pytest.mark.multiprocess
@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_processes_are_one(name: str, tmp_path: Path) -> None:
    records = conversations(tmp_path, count=16, text_share=0.5)
    assert 4 <= sum("image" in record for record in records) <= 12
    model, strategy = RUNS[name]
    words = [*COMMON, *model, *table(tmp_path, records)]
    shared = [*strategy, "data.batch_size=1"]
    two = started(name, [*words, *shared, "run.dir=two"], tmp_path)
    run(compose(f"emu/{name}", [*words, *ALONE, f"run.dir={tmp_path / 'one'}"]))
    finished(two)
    one, both = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(both) == STEPS
    assert any(row["train/regression_loss"] > 0 for row in one)
    assert one[-1]["train/loss"] != one[0]["train/loss"]
    for mine, theirs in zip(one, both, strict=True):
        for key in NAMES:
            assert theirs[key] == pytest.approx(mine[key], rel=5e-5, abs=1e-6), key
    weights = load_file(tmp_path / "one" / "model" / "model.safetensors")
    found = load_file(tmp_path / "two" / "model" / "model.safetensors")
    assert found.keys() == weights.keys()
    for key, tensor in weights.items():
        assert_close(found[key], tensor, atol=5e-6, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    if name == "pretrain":
        resumes([*words, *shared], tmp_path, found, both)


def resumes(words: list[str], folder: Path, found: dict[str, Tensor], logged: list[dict[str, float]]) -> None:
    """From the middle on, two processes end with the very bits."""
    checkpoint = find_checkpoint("last", folder / "two")
    assert checkpoint is not None
    middle = checkpoint.with_name("step_00000004.ckpt")
    finished(started("pretrain", [*words, f"resume={middle}", "run.dir=again"], folder))
    again = load_file(folder / "again" / "model" / "model.safetensors")
    assert all(bool((again[key] == tensor).all()) for key, tensor in found.items())
    for mine, theirs in zip(rows(folder / "again"), logged[4:], strict=True):
        assert mine["train/loss"] == theirs["train/loss"]
