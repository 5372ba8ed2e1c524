"""The run folder is checked before training starts; resume means what it says."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from torch import nn

from multimodal_zoo.config import compose
from multimodal_zoo.training.checkpointing import point
from multimodal_zoo.training.folder import check_run_folder, checkpoint_bytes, find_checkpoint, run_bytes


def test_a_folder_that_cannot_be_written_names_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"run folder .*file/run cannot be written: .*run.dir=PATH"):
        check_run_folder(tmp_path / "file" / "run", 0)


def test_the_command_refuses_such_a_folder_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodal_zoo.commands import train
    from multimodal_zoo.commands.errors import is_ours, message
    from multimodal_zoo.training import initial

    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(initial, "initial_model", lambda recipe, **others: pytest.fail("went on"))
    config = compose("quickstart", [f"run.dir={tmp_path / 'file' / 'run'}"])
    with pytest.raises(OSError, match=r"run folder .*file/run cannot be written: .*run.dir=PATH") as caught:
        train.run(config)
    assert is_ours(caught.value)
    assert message(caught.value).startswith("mmzoo: run folder ")


def test_a_full_disk_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**30, 2**30, 3 * 2**20))
    check_run_folder(tmp_path, 2 * 2**20)
    with pytest.raises(OSError, match=r"3 MiB free, but the checkpoints and the model need 5 MiB; .*run.dir=PATH"):
        check_run_folder(tmp_path, 5 * 2**20)


def test_the_estimate_covers_a_real_checkpoint(fit, tmp_path: Path) -> None:
    callbacks = {
        "checkpoint": {"_target_": "multimodal_zoo.training.checkpointing.Checkpoints"},
        "ema": {"_target_": "multimodal_zoo.training.ema.Ema"},
    }
    module, _ = fit(callbacks=callbacks, trainer={"max_steps": 2})
    size = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat().st_size
    tensors = checkpoint_bytes(module, averaged=True)
    assert 4 * 4 * sum(p.numel() for p in module.parameters()) == tensors
    assert tensors < size < tensors + 40_000  # pickle's own bytes, random state and names


def test_every_kept_checkpoint_and_the_one_being_written_must_fit(tmp_path: Path) -> None:
    model = nn.Linear(3, 5)
    one, exported = checkpoint_bytes(model, averaged=False), 4 * 20
    assert run_bytes(model, averaged=False, keep=2, folder=tmp_path) == 3 * one + exported
    assert run_bytes(model, averaged=False, keep=0, folder=tmp_path) == exported
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step_{step:08d}.ckpt").touch()
    assert run_bytes(model, averaged=False, keep=2, folder=tmp_path) == one + exported


def test_what_resume_means(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert find_checkpoint(None, run) is None
    assert find_checkpoint("auto", run) is None
    with pytest.raises(FileNotFoundError, match="resume=last: no "):
        find_checkpoint("last", run)
    (run / "checkpoints").mkdir(parents=True)
    real = run / "checkpoints" / "step_00000001.ckpt"
    real.write_bytes(b"x")
    point(run / "checkpoints" / "last.ckpt", real.name)
    for resume in ("auto", "last", str(run), str(real)):
        assert find_checkpoint(resume, run) == real.resolve()
    with pytest.raises(FileExistsError, match="continue it with resume=auto"):
        find_checkpoint(None, run)
    with pytest.raises(FileNotFoundError, match="resume: no checkpoint at"):
        find_checkpoint(str(tmp_path / "none"), run)
    real.unlink()
    for resume in (None, "auto", "last"):
        with pytest.raises(FileNotFoundError, match=r"last\.ckpt points to step_00000001\.ckpt, which is gone"):
            find_checkpoint(resume, run)


def test_a_copy_stands_in_for_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: str) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for text in ("one", "two"):
        (tmp_path / "a.ckpt").write_text(text)
        point(tmp_path / "last.ckpt", "a.ckpt")
        assert (tmp_path / "last.ckpt").read_text() == text


def test_the_estimate_counts_what_each_rank_has_for_itself() -> None:
    from multimodal_zoo.objectives.queue import NeighbourQueue

    queue = NeighbourQueue(size=10, width=4)
    one = checkpoint_bytes(queue, averaged=False)
    assert checkpoint_bytes(queue, averaged=False, ranks=3) == 3 * one == 3 * (4 * 40 + 4 * 10 + 8)
