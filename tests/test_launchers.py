"""The command line as others start it: printing a configuration, sweeps here and through submitit, torchrun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from multimodal_zoo.cli import main
from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics

MINE = """
# @package _global_
defaults:
  - /quickstart
  - _self_
run: {name: mine}
callbacks: {samples: null}
trainer: {max_steps: 1, limit_val_batches: 0, log_every_n_steps: 1}
data: {batch_size: 8, train: {share: 0.05}}
logger: null
threads: 1
evaluation: null
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.yaml").write_text(MINE.lstrip())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


def test_cfg_job_prints_the_composed_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "./mine.yaml", "--cfg", "job", "optim.lr=0.5"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["run"]["name"] == "mine"
    assert printed["optim"]["lr"] == 0.5
    assert printed["data"]["train"]["type"] == "emoji_pairs"
    assert not (folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.multiprocess
@pytest.mark.parametrize("launcher", ["", "local"])
def test_a_sweep_gives_each_job_a_folder_of_its_own(folder: Path, launcher: str) -> None:
    """One after the other in this process, or all at once as processes that submitit starts."""
    words = [f"launcher={launcher}"] if launcher else []
    assert main(["train", "./mine.yaml", "-m", "seed=3,4", *words]) == 0
    jobs = sorted((folder / "runs" / "mine").glob("*_sweep/[01]"))
    assert len(jobs) == 2
    seeds = [yaml.safe_load((job / "config.yaml").read_text())["seed"] for job in jobs]
    weights = [(job / "model" / "model.safetensors").read_bytes() for job in jobs]
    assert seeds == [3, 4]
    assert weights[0] != weights[1]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_torchrun_is_told_to_stop_and_one_process_goes_on(folder: Path) -> None:
    """SIGTERM to torchrun reaches its processes, which save the step that they are at."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    words += ["multimodal_zoo", "train", "./mine.yaml", "trainer=ddp_cpu", "trainer.max_steps=100000"]
    place = folder / "run"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*words, "data.batch_size=4", f"run.dir={place}"], stdout=log, stderr=log)
    deadline = time.monotonic() + 240
    while not steps(place):
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, "no step in time"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=240) != 0
    (checkpoint,) = (place / "checkpoints").glob("step_*.ckpt")
    last = int(checkpoint.stem.removeprefix("step_"))
    assert steps(place) == list(range(last)), (folder / "log").read_text()
    more = [f"run.dir={place}", "resume=auto", "elastic=true", f"trainer.max_steps={last + 2}"]
    run(compose("mine", more, folder=str(folder)))
    assert steps(place) == list(range(last + 2))
    assert (place / "model" / "model.safetensors").exists()


def steps(place: Path) -> list[int]:
    """Those that were logged."""
    path = place / "metrics.csv"
    rows = read_metrics(path) if path.exists() and os.path.getsize(path) else []
    return [int(row["step"]) for row in rows if "train/loss" in row]
