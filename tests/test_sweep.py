"""The command line as a whole: printing a configuration, sweeping, running a user's own file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

MINE = """
# @package _global_
defaults:
  - /quickstart
  - _self_
run: {name: mine}
callbacks: {samples: null}
trainer: {max_steps: 1, limit_val_batches: 0}
data: {batch_size: 8}
threads: 1
evaluation: null
"""


def mmzoo(*words: str, folder: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "multimodal_zoo", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(MINE.lstrip())
    return tmp_path


def test_cfg_job_prints_the_composed_recipe(folder) -> None:
    printed = yaml.safe_load(mmzoo("train", "./mine.yaml", "--cfg", "job", "optim.lr=0.5", folder=folder))
    assert printed["run"]["name"] == "mine"
    assert printed["optim"]["lr"] == 0.5
    assert printed["data"]["train"]["type"] == "emoji_pairs"
    assert not (folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_sweep_gives_each_job_a_folder_of_its_own(folder) -> None:
    mmzoo("train", "./mine.yaml", "-m", "seed=3,4", folder=folder)
    jobs = sorted((folder / "runs" / "mine").glob("*_sweep/[01]"))
    assert len(jobs) == 2
    seeds = [yaml.safe_load((job / "config.yaml").read_text())["seed"] for job in jobs]
    weights = [(job / "model" / "model.safetensors").read_bytes() for job in jobs]
    assert seeds == [3, 4]
    assert weights[0] != weights[1]
