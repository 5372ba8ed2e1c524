"""`mmzoo app`: its words, and what is said where it cannot start."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from multimodal_zoo.cli import main
from multimodal_zoo.commands.complete import candidates
from multimodal_zoo.commands.gallery import Options, showroom
from multimodal_zoo.commands.options import separate


def test_words_are_folders_and_options() -> None:
    words, options = separate(["runs", "other", "port=8000", "host=0.0.0.0", "jobs=2", "allow_random=true"], Options)
    assert words == ["runs", "other"]
    assert (options.port, options.host, options.jobs, options.allow_random) == (8000, "0.0.0.0", 2, True)
    assert Options().host == "127.0.0.1"
    assert candidates("mmzoo app runs po") == ["port="]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["prot=1"], "no option 'prot'"),
        (["port=many"], "port=many: expected a whole number"),
        (["open=yes"], "open=yes: expected true or false"),
        (["port=70000"], "port=70000: expected 0 to 65535"),
        (["jobs=0"], "jobs=0: expected at least 1"),
    ],
)
def test_words_that_do_not_fit(words, said, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["app", *words]) == 1
    assert said in capsys.readouterr().err


def test_gradio_is_named_where_it_is_missing(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app", str(tmp_path)]) == 1
    assert "pip install 'multimodal_zoo[app]'" in capsys.readouterr().err


def test_limits_reach_the_room(runs, tmp_path) -> None:
    room = showroom([runs / "photos"], Options(megabytes=3, megapixels=5, seconds=7, jobs=2, waiting=1), tmp_path)
    assert (room.limits.bytes, room.limits.pixels, room.limits.seconds) == (3 * 2**20, 5 * 10**6, 7)
    assert "photos" in room.albums.albums


@pytest.mark.parametrize(
    ("word", "said"),
    [("device=cuda:77", "device=cuda:77: "), ("device=gpu", "device=gpu: "), ("threads=0", "threads=0: expected 1 to")],
)
def test_what_the_machine_has_not_is_said_before_models_are_looked_for(word, said, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", sys)
    assert main(["app", str(tmp_path), word]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_other_hosts_are_warned_of(host, warned, monkeypatch, capsys, tmp_path) -> None:
    asked, rooms = [], []

    @contextmanager
    def serving(room, *values):
        asked.append(values)
        rooms.append(room.scratch)
        yield "http://here"

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "gradio", sys)
    monkeypatch.setattr("multimodal_zoo.gallery.server.serving", serving)
    monkeypatch.setattr(time, "sleep", interrupted)
    assert main(["app", str(tmp_path), f"host={host}", "port=1234"]) == 0
    said = capsys.readouterr().out
    assert ("warning: " in said) is warned
    assert "0 models" in said
    assert asked == [(host, 1234, False)]
    assert not Path(rooms[0]).exists()  # uploads are gone
