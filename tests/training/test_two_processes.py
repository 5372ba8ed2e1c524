"""Every paradigm on two processes, replicated or sharded, is the run on one; cut off anywhere, it goes on exactly."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from moments import Amid, WhileSaving, assert_same, killed_run, partial_of
from omegaconf import DictConfig
from pair import Interrupt, Pair, watched_by
from paradigms import OWN_QUEUES, PARADIGMS, STEPS, Paradigm, on_two, placed
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.commands.train import run
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.preemption import STATUS

#: What does not depend on the queue; the whole loss does from the second step on.
PARTS = ("multi_view", "image_text", "token_wise", "logit_scale")
#: Calls of functions among which a kill is drawn: fewer than the two steps behind a checkpoint take.
CALLS = 50_000
#: What of a checkpoint must be equal, where it has it.
KEPT = {"state_dict", "optimizer_states", "lr_schedulers", "random_states", "rank_buffers", "ema"}
QUEUE = "parts.nearest_neighbour.queue.entries"
pytestmark = [pytest.mark.multiprocess, pytest.mark.slow]


@dataclass(frozen=True)
class Trained:
    """A paradigm's runs.

    Attributes:
        paradigm: of them.
        config: its recipe for one process.
        folder: `one`, and a folder for each trainer of two processes.
        pair: two processes that take more.
    """

    paradigm: Paradigm
    config: DictConfig
    folder: Path
    pair: Pair

    def checkpoint(self, name: str, step: int = 2) -> str:
        """Of a run."""
        return str(self.folder / name / "checkpoints" / f"step_{step:08d}.ckpt")

    def turn(self, number: int, at_once: bool = False) -> str:
        """A trainer of two processes (`at_once`: without accumulation); paradigms take turns, and so do their tests."""
        ways = [way for way, batch in self.paradigm.ways.items() if not at_once or 2 * batch == self.paradigm.batch]
        return ways[(list(PARADIGMS.values()).index(self.paradigm) + number) % len(ways)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Pair]]:
    """Two processes for all runs; a failure ends them, and others take their place."""
    started: list[Pair] = []

    def pair() -> Pair:
        if not started or not started[-1].alive:
            started.append(Pair(tmp_path_factory.mktemp("pair")))
        return started[-1]

    yield pair
    for one in started:
        one.close()


@pytest.fixture(scope="module", params=PARADIGMS)
def trained(
    request: pytest.FixtureRequest, pairs: Callable[[], Pair], tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    paradigm, folder, pair = PARADIGMS[request.param], tmp_path_factory.mktemp("runs"), pairs()
    config = paradigm.compose(folder)
    for trainer in paradigm.ways:
        pair.train(on_two(config, paradigm, trainer, folder / trainer))
    run(placed(config, folder / "one"))
    for trainer in paradigm.ways:
        assert pair.answer() == [0, 0], trainer
    return Trained(paradigm, config, folder, pair)


def rows(folder: Path) -> list[dict[str, float]]:
    """What was logged of each step."""
    return [row for row in read_metrics(folder / "metrics.csv") if "train/gradient_norm" in row]


def exported(folder: Path) -> dict[str, Tensor]:
    """The weights that a run left."""
    return load_file(folder / "model" / "model.safetensors")


def saved(path: str) -> dict[str, Any]:
    """A checkpoint."""
    return torch.load(path, weights_only=True)


def close(trained: Trained, name: str) -> None:
    """A run gave the weights and the checkpoint of the one on one process, but for rounding."""
    atol, rtol = trained.paradigm.weights
    expected = exported(trained.folder / "one")
    found = exported(trained.folder / name)
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert_close(found[key], tensor, atol=atol, rtol=rtol, msg=lambda text, key=key: f"{name}, {key}: {text}")
    ends = [saved(trained.checkpoint(run, STEPS)) for run in ("one", name)]
    weights, others = ({k: t for k, t in end["state_dict"].items() if k.startswith("model.")} for end in ends)
    assert weights.keys() == others.keys()
    for key, tensor in weights.items():
        assert_close(others[key], tensor, atol=atol, rtol=rtol, msg=lambda text, key=key: f"{name}, {key}: {text}")
    shapes = [[shapes_of(state) for state in end["optimizer_states"]] for end in ends]
    assert shapes[0] == shapes[1]


def shapes_of(state: dict[str, Any]) -> dict[str, dict[str, torch.Size]]:
    """Of an optimiser's tensors, by parameter."""
    return {
        name: {key: torch.as_tensor(value).shape for key, value in held.items()}
        for name, held in state["state"].items()
    }


def same(one: Path, other: Path, start: int = 0) -> None:
    """Losses and weights, bit for bit."""
    key = "train/loss"
    assert [row[key] for row in rows(one)] == [row[key] for row in rows(other)[start:]]
    first, second = exported(one), exported(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], tensor) for name, tensor in second.items())


def test_two_processes_are_one(trained: Trained) -> None:
    paradigm, expected = trained.paradigm, rows(trained.folder / "one")
    assert len(expected) == STEPS
    assert expected[-1]["train/loss"] != expected[0]["train/loss"]
    for trainer, batch in paradigm.ways.items():
        found = rows(trained.folder / trainer)
        accumulated = 2 * batch < paradigm.batch  # of the figures the last batch's are logged then
        keys = ("gradient_norm", *(() if accumulated else ("loss", *paradigm.keys)))
        for mine, theirs in zip(expected, found, strict=True):
            for key in (f"train/{key}" for key in keys):
                assert (key in mine) == (key in theirs), key
                if key in mine:
                    near = paradigm.steep if key.endswith("gradient_norm") and paradigm.steep else paradigm.near
                    assert theirs[key] == pytest.approx(mine[key], rel=near, abs=1e-6), (trainer, key)
        assert all(any(f"train/{key}" in row for row in expected) for key in paradigm.keys)
        close(trained, trainer)


def test_one_process_goes_on_exactly(trained: Trained, request: pytest.FixtureRequest) -> None:
    """Killed by SIGKILL at a moment drawn between two checkpoints, then in the middle of writing the second one."""
    folder, moment = trained.folder / "killed", Random(request.node.name).randrange(CALLS)
    config = placed(trained.config, folder, resume="auto")
    for way in (Amid(2, moment), WhileSaving(STEPS)):
        killed_run(config, way)
        assert (folder / "checkpoints" / "last.ckpt").resolve() == Path(trained.checkpoint("killed"))
        assert not Path(trained.checkpoint("killed", STEPS)).exists()
    with pytest.raises((RuntimeError, EOFError, OSError, pickle.UnpicklingError)):
        saved(str(partial_of(folder, STEPS)))  # half of it is there
    run(config)
    same(folder, trained.folder / "one")
    ends = [saved(trained.checkpoint(name, STEPS)) for name in ("killed", "one")]
    for part in KEPT & ends[1].keys():
        assert_same(ends[0][part], ends[1][part], part)
    left = {path.name for path in (folder / "checkpoints").iterdir()}
    assert left == {path.name for path in (trained.folder / "one" / "checkpoints").iterdir()}


def test_one_process_saves_the_step_at_which_it_is_told_to_stop(tmp_path: Path) -> None:
    paradigm = PARADIGMS["contrastive"]
    config = placed(paradigm.compose(tmp_path), tmp_path / "run", resume="auto")
    with pytest.raises(SystemExit) as end, watched_by(Interrupt(1)):
        run(config)
    assert end.value.code == STATUS
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("step_*")] == ["step_00000001.ckpt"]
    assert [row["step"] for row in rows(tmp_path / "run")] == [0]


def test_two_processes_go_on_exactly(trained: Trained) -> None:
    """The second process alone is told to stop, by SIGTERM; every other paradigm is replicated, the rest sharded."""
    paradigm, pair, folder = trained.paradigm, trained.pair, trained.folder
    trainer = trained.turn(0)
    config = on_two(trained.config, paradigm, trainer, folder / "stopped", resume="auto")
    pair.train(config, stop=3)
    pair.train(config)  # begins in each process as soon as it has ended the first run, whatever the other one does
    assert pair.answer() == [STATUS, 0]
    assert pair.answer() == [0, 0]
    same(folder / "stopped", folder / trainer)


def test_another_number_of_processes_goes_on(trained: Trained) -> None:
    """What two have saved one continues, and the reverse; documents that are packed have places of each process."""
    paradigm, folder = trained.paradigm, trained.folder
    trainer = trained.turn(1, at_once=True)  # a step is a batch on one process too
    shrunk = placed(trained.config, folder / "shrunk", resume=trained.checkpoint(trainer), elastic=True)
    if not paradigm.elastic:
        with pytest.raises(ValueError, match=r"dealt to 2 process\(es\), this run has 1: resume with as many"):
            run(shrunk)
        return
    grown = on_two(trained.config, paradigm, trainer, folder / "grown", resume=trained.checkpoint("one"), elastic=True)
    trained.pair.train(grown)
    run(shrunk)
    assert trained.pair.answer() == [0, 0]
    for name in ("shrunk", "grown"):
        close(trained, name)


def test_what_two_processes_export_is_a_whole_model(trained: Trained) -> None:
    for trainer in trained.paradigm.ways:
        held = exported(trained.folder / trainer)
        for name, tensor in zoo.from_pretrained(str(trained.folder / trainer / "model")).state_dict().items():
            assert torch.equal(held[name], tensor), name  # what training alone needs is left out


def test_each_process_has_a_queue_of_its_own(pairs: Callable[[], Pair], tmp_path: Path) -> None:
    """Published so: nothing depends on the queue at the first step, and little else does at the second."""
    pair, config = pairs(), OWN_QUEUES.compose(tmp_path)
    for trainer in OWN_QUEUES.ways:
        pair.train(on_two(config, OWN_QUEUES, trainer, tmp_path / trainer))
    resume = str(tmp_path / "ddp_cpu" / "checkpoints" / "step_00000002.ckpt")
    pair.train(on_two(config, OWN_QUEUES, "ddp_cpu", tmp_path / "again", resume=resume))
    run(placed(config, tmp_path / "one"))
    one = rows(tmp_path / "one")
    whole = saved(str(tmp_path / "one" / "checkpoints" / "step_00000002.ckpt"))["state_dict"][f"objective.{QUEUE}"]
    for trainer in OWN_QUEUES.ways:
        assert pair.answer() == [0, 0]
        two = rows(tmp_path / trainer)
        for step, key in [(0, "loss"), (0, "nearest_neighbour"), *((1, key) for key in PARTS)]:
            assert two[step][f"train/{key}"] == pytest.approx(one[step][f"train/{key}"], rel=2e-5), (trainer, step, key)
        # the first process enqueues the even pairs, the second the odd ones: each stored both views of its four
        entries = saved(str(tmp_path / trainer / "checkpoints" / "step_00000002.ckpt"))["rank_buffers"][QUEUE]
        assert len(entries) == 2
        assert not torch.allclose(entries[0], entries[1])
        first = torch.cat([entry[:8] for entry in entries])  # of the first step, when all weights were equal
        assert torch.cdist(first, whole[:16]).min(1).values.max() < 1e-4
    assert pair.answer() == [0, 0]
    same(tmp_path / "again", tmp_path / "ddp_cpu", start=2)
    ends = [
        saved(str(tmp_path / name / "checkpoints" / "last.ckpt"))["rank_buffers"][QUEUE]
        for name in ("again", "ddp_cpu")
    ]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*ends, strict=True))


@pytest.mark.parametrize("name", ["contrastive", "adversarial tokenizer"])
def test_steps_between_those_that_are_logged(name: str, pairs: Callable[[], Pair], tmp_path: Path) -> None:
    """Only logged figures are means over processes."""
    pair, paradigm = pairs(), PARADIGMS[name]
    config = paradigm.compose(tmp_path)
    config.trainer.log_every_n_steps = 2
    pair.train(on_two(config, paradigm, "ddp_cpu", tmp_path / "two"))
    run(placed(config, tmp_path / "one"))
    assert pair.answer() == [0, 0]
    one, two = (rows(tmp_path / folder) for folder in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two] == [1, 3]
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["train/loss"] == pytest.approx(mine["train/loss"], rel=paradigm.near)


def test_processes_that_others_have_started(pairs: Callable[[], Pair], tmp_path: Path) -> None:
    """What torchrun and Slurm tell them is all that they know of each other."""
    pair, paradigm = pairs(), PARADIGMS["next token"]
    config, starters = paradigm.compose(tmp_path), ("ours", "torchrun", "srun")
    for starter in starters:
        pair.train(on_two(config, paradigm, "ddp_cpu", tmp_path / starter), starter=starter)
    for starter in starters:
        assert pair.answer() == [0, 0], starter
        same(tmp_path / starter, tmp_path / "ours")
