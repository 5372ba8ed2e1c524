"""Which models a folder holds, what they are good for, and which stay in memory."""

from __future__ import annotations

import shutil

import pytest

from multimodal_zoo.gallery.shelf import ABILITIES, Shelf


def test_what_each_model_is_good_for(shelf) -> None:
    found = {ability: shelf.names(ability) for ability in ABILITIES}
    assert found == {
        "retrieve": ["runs/pairs"],
        "zero_shot": ["runs/pairs"],
        "chat": ["runs/painter", "runs/talker", "runs/tokens"],
        "generate": ["runs/painter", "runs/tokens"],
        "detect": ["runs/boxes"],
        "fuse": ["runs/student"],
    }


def test_weights_that_were_never_trained_are_shown_on_request(runs) -> None:
    assert "runs/untrained" in Shelf([runs], allow_random=True).names("retrieve")


def test_one_run_and_a_folder_of_weights_are_folders_too(runs) -> None:
    assert Shelf([runs / "pairs"]).names("retrieve") == ["pairs"]
    assert Shelf([runs / "pairs" / "model"]).names("retrieve") == ["model"]
    assert Shelf([runs / "pairs", runs / "pairs"]).names("retrieve") == ["pairs", "pairs (2)"]


def test_broken_models_and_links_that_lead_out_are_left_out(runs, tmp_path, caplog) -> None:
    mine = tmp_path / "mine"
    (mine / "broken").mkdir(parents=True)
    (mine / "broken" / "config.yaml").write_text("model: {type: no_such_part}\n")
    (mine / "broken" / "model.safetensors").write_bytes(b"no tensors")
    (mine / "linked").mkdir()
    shutil.copy(runs / "pairs/model/config.yaml", mine / "linked")
    (mine / "linked" / "model.safetensors").symlink_to(runs / "pairs/model/model.safetensors")
    (mine / "folder").symlink_to(runs / "pairs")
    assert Shelf([mine]).entries == {}
    assert "leads out of" in caplog.text
    assert "broken is left out" in caplog.text


def test_the_model_used_longest_ago_goes(runs) -> None:
    small = Shelf([runs], keep=1)
    with small.lent("runs/pairs", "retrieve") as first:
        assert not first.training
    with small.lent("runs/pairs", "zero_shot") as again:
        assert again is first
    with small.lent("runs/student", "fuse"):
        pass
    with small.lent("runs/pairs", "retrieve") as anew:
        assert anew is not first


@pytest.mark.parametrize(
    ("name", "said"), [(None, "choose a model"), ("runs/boxes", "can zero-shot"), ("../x", "no model")]
)
def test_models_that_are_not_there(shelf, name, said) -> None:
    with pytest.raises(LookupError, match=said), shelf.lent(name, "zero_shot"):
        pass


def test_a_folder_that_is_not_there(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        Shelf([tmp_path / "nowhere"])
