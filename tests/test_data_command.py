"""`mmzoo data`."""

from __future__ import annotations

import pytest

from multimodal_zoo.cli import main
from multimodal_zoo.commands.complete import candidates


def test_synthetic_scenes_are_made_and_named(tmp_path, capsys) -> None:
    words = ["data", "synth-nuscenes", str(tmp_path / "set"), "scenes=2", "frames=1", "size=64x36", "seed=3", "rate=2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "1 scenes for training, 1 for validation" in shown
    sheet = shown.strip().splitlines()[-1].rpartition(": ")[2]
    assert sheet == str(tmp_path / "set" / "contact_sheet.png")
    assert (tmp_path / "set" / "v1.0-synthetic" / "sample_annotation.json").is_file()
    assert main([*words[:-2], "seed=4", "rate=2"]) == 1
    assert "seed=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "needs a kind: expected synth-nuscenes"),
        (["synth-kitti", "x"], "synth-kitti: expected synth-nuscenes"),
        (["synth-nuscenes"], "needs one folder, and got 0"),
        (["synth-nuscenes", "scenes=3"], "needs one folder, and got 0"),
        (["synth-nuscenes", "x", "y"], "needs one folder, and got 2"),
        (["synth-nuscenes", "x", "scens=3"], "scens=3: no option 'scens'; there are scenes, frames"),
        (["synth-nuscenes", "x", "scenes=many"], "scenes=many: expected a whole number"),
        (["synth-nuscenes", "x", "size=400"], "size=400: expected WIDTHxHEIGHT"),
        (["synth-nuscenes", "x", "rate=7"], "rate=7: expected a multiple of 2"),
        (["synth-nuscenes", "x", "workers=0"], "workers=0: expected at least 1"),
    ],
)
def test_bad_words_get_a_readable_error(words, expected, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == 1
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_and_completion(capsys) -> None:
    assert main(["data", "-h"]) == 0
    assert "synth-nuscenes FOLDER" in capsys.readouterr().out
    assert candidates("mmzoo data ") == ["emoji-captions", "synth-nuscenes"]
    assert candidates("mmzoo data synth-nuscenes folder se") == ["seed="]
