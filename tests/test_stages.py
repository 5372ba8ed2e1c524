"""Recipes of several stages: words that reach a stage, stages that refer to earlier ones, resuming, sweeps, ranks."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationKeyError

from multimodal_zoo.cli import main
from multimodal_zoo.commands.stages import FINISHED, compose_stages, finished, run_stages
from multimodal_zoo.config import compose
from multimodal_zoo.stages import routed
from undrawn import undrawn

TINY = """# @package _global_
defaults:
  - /base/train
  - override /model: clip_tiny
  - override /encoder@model.image: clip_vit_tiny
  - override /data: emoji
  - override /logger: csv
  - _self_
run: {name: tiny}
model:
  embed_dim: 16
  image: {width: 32, blocks: {depth: 1}}
  text: {width: 32, blocks: {depth: 1}}
data:
  batch_size: 8
  train: {styles: [twemoji], image_size: 32, share: 0.05}
trainer: {max_steps: 2, limit_val_batches: 0, log_every_n_steps: 1}
callbacks: {samples: null, checkpoint: {every_n_steps: 1}}
"""
TWO = """# @package _global_
defaults:
  - /base/stages
  - _self_
run: {name: two}
threads: 1
stages:
  first:
    recipe: ./tiny.yaml
  second:
    recipe: ./tiny.yaml
    overrides:
      - initial_weights=${stage.first}
      - trainer.max_steps=3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "two.yaml").write_text(TWO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def stages(folder: Path, *words: str) -> dict[str, Any]:
    found = compose_stages(compose("two", [f"run.dir='{folder / 'a run, 1'}'", *words], folder=str(folder)))
    return {stage.name: stage for stage in found}


def mmzoo(*words: str, fails: bool = False) -> str:
    """What the command prints, run in this process and folder."""
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(io.StringIO()) as said, undrawn():
        try:
            status = main(["train", "./two.yaml", *words])
        except SystemExit as end:  # of a job
            status = int(end.code or 0)
    assert (status != 0) == fails, said.getvalue()[-2000:]
    return said.getvalue() if fails else printed.getvalue()


def in_a_process(*words: str, folder: Path) -> str:
    """The same in a process of its own, which starts others."""
    command = [sys.executable, "-m", "multimodal_zoo", "train", "./two.yaml", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_words_reach_the_stage_that_they_name(folder) -> None:
    words = ["first.optim.lr=0.5", "first.optim=muon", "second.data.train.styles=[openmoji]", "seed=3"]
    found = stages(folder, *words, "+second.trainer.min_steps=1", "overrides=['data.batch_size=4']")
    first, second = found["first"].config, found["second"].config
    assert (first.optim.lr, first.seed, first.data.batch_size, first.trainer.max_steps) == (0.5, 3, 4, 2)
    assert "Muon" in first.optim["_target_"]
    assert (second.data.train.styles, second.trainer.min_steps, second.trainer.max_steps) == (["openmoji"], 1, 3)
    assert second.optim.lr == compose("tiny", folder=str(folder)).optim.lr


def test_a_stage_refers_to_those_before_it(folder) -> None:
    found = stages(folder)
    assert found["second"].config.initial_weights == str(folder / "a run, 1" / "first" / "model")
    assert found["second"].config.run.dir == str(folder / "a run, 1" / "second")
    elsewhere = stages(folder, "stages.first=null", "+stage.first=trained/model")
    assert list(elsewhere) == ["second"]
    assert elsewhere["second"].config.initial_weights == str(folder / "trained" / "model")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["frst.optim.lr=1"], "no stage or key named 'frst'; closest: first"),
        (["first.optim.lrr=1"], "optim.lrr: no key named 'lrr'; closest: lr"),
        (["second.optim=muonn"], "no option named 'muonn'; closest: muon"),
        (["stages.first=null"], "'stage.first' not found; stages before it: none"),
        (["stages.first.recipe=quickstrt"], "no recipe named 'quickstrt'; closest: quickstart"),
        (["stages.first.recipe=./two.yaml"], "two.yaml has stages itself"),
        (["stages.first.recipe=null"], "stages.first.recipe: a stage has a recipe"),
        (["+stages.first.repice=x"], "stages.first.repice: a stage has a recipe"),
        (["stages.second.overrides=x"], "expected a list of words"),
        (["stages.first=null", "stages.second=null"], "the recipe has none"),
    ],
)
def test_mistakes_are_named(folder, words, expected) -> None:
    with pytest.raises((KeyError, ValueError), match=expected.replace("(", r"\(")) as caught:
        stages(folder, *words)
    assert "finished" not in str(getattr(caught.value, "__notes__", ""))


def test_routing_expands_sweeps() -> None:
    word = "a.optim.lr=0.1,0.2"
    assert routed([word], ["a"], [], sweep=True) == ["+stages.a.given.word_0='optim.lr=0.1','optim.lr=0.2'"]
    assert routed([word], ["a"], []) == ["+stages.a.given.word_0='optim.lr=0.1,0.2'"]
    assert routed(["a.x=range(1,3)"], ["a"], [], sweep=True) == ["+stages.a.given.word_0='x=1','x=2'"]
    assert routed(["~a.callbacks.ema", "a.y='${b}'"], ["a"], []) == [
        "+stages.a.given.word_0='~callbacks.ema'",
        r"+stages.a.given.word_1='y=\'\${b}\''",
    ]
    assert routed(["a.x=1", "-m"], [], []) == ["a.x=1", "-m"]


def test_a_word_keeps_its_interpolation_for_the_stage(folder) -> None:
    found = stages(folder, "first.run.name='${model.embed_dim}'")
    assert found["first"].config.run.name == 16
    assert found["first"].content()["run"]["name"] == 16


def test_ranks_from_outside_need_one_folder(folder, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"another one for each of 2 processes: give run\.dir"):
        run_stages(compose("two", folder=str(folder)))


def test_a_damaged_note_of_a_finished_stage_says_what_to_do(folder) -> None:
    """And only that: a mistake in the stage's recipe is not the note's."""
    stage = stages(folder)["first"]
    stage.folder.mkdir(parents=True)
    for damage in ("{", "[]", "{}"):
        (stage.folder / FINISHED).write_text(damage)
        with pytest.raises(
            ValueError, match=rf"{FINISHED} is damaged or no note of a finished stage .*; delete it, and"
        ):
            finished(stage)
    (stage.folder / FINISHED).write_text(json.dumps({"config": {}}))
    broken = replace(stage, config=OmegaConf.create({"seed": "${nowhere}"}))
    with pytest.raises(InterpolationKeyError, match="nowhere"):
        finished(broken)


def test_resume_is_null_or_auto(folder) -> None:
    with pytest.raises(ValueError, match="resume is 'last'"):
        run_stages(compose("two", ["resume=last"], folder=str(folder)))


@pytest.mark.slow
def test_stages_run_in_order_resume_and_sweep(folder) -> None:
    place = folder / "run"
    printed = mmzoo("run.dir=run", "first.optim.lr=0.001")
    assert "stage second (2 of 2)" in printed
    notes = {name: json.loads((place / name / "stage.json").read_text()) for name in ("first", "second")}
    assert notes["second"]["config"]["initial_weights"] == "./first/model"
    assert 'href="second/report.html"' in (place / "report.html").read_text()
    assert list(json.loads((place / "report.json").read_text())["stages"]) == ["first", "second"]

    assert "resume=auto" in mmzoo("run.dir=run", "first.optim.lr=0.001", fails=True)
    assert "optim.lr was 0.001, is 0.0005" in mmzoo("run.dir=run", "resume=auto", fails=True)
    weights = (place / "second" / "model" / "model.safetensors").read_bytes()
    (place / "second" / "stage.json").unlink()
    (place / "second" / "model" / "model.safetensors").unlink()
    moved = place.rename(folder / "moved")  # what was finished elsewhere is known again
    again = mmzoo("run.dir=moved", "first.optim.lr=0.001", "resume=auto")
    assert "finished before" in again
    assert "continuing from" in again
    assert (moved / "second" / "model" / "model.safetensors").read_bytes() == weights

    mmzoo("-m", "second.seed=1,2", "stages.first=null", "+stage.first=moved/first/model")
    jobs = sorted(folder.glob("runs/two/*_sweep/*/second/stage.json"))
    assert [json.loads(job.read_text())["config"]["seed"] for job in jobs] == [1, 2]


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_stage_on_two_ranks_then_one_on_one(folder) -> None:
    printed = in_a_process("run.dir=run", "first.trainer=ddp_cpu", folder=folder)
    assert printed.count("run folder:") == 2
    assert (folder / "run" / "second" / "stage.json").is_file()
