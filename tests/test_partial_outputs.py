"""Commands that write folders, killed in the midst of a file or given damaged input: nothing looks whole that is not.

What is there is gone on with by the same command, or refused by name; damaged weights to convert are in
`fuzz/test_found.py`.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multimodal_zoo as zoo
from killing import kill_in_file, killed
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.cli import main
from multimodal_zoo.export import folder as export_folder
from multimodal_zoo.files import HALF, parsed


@dataclass(frozen=True)
class Command:
    """A command and what it leaves.

    Attributes:
        words: without the folder.
        out: how the folder is given.
        kills: in which of its files it is killed, run after run.
        parts: whether it goes on behind parts that are there; else its folder appears in one step.
        notes: files that tell of times or of how far it came.
    """

    words: tuple[str, ...]
    out: str
    kills: tuple[int, ...]
    parts: bool
    notes: tuple[str, ...] = ()


COMMANDS = {
    "embed": Command(("embed", "clip", "pictures", "format=npz", "shard_size=2"), "out={}", (1, 3), True, ("*.json",)),
    "tokenize": Command(("tokenize", "vision", "pictures", "shard_size=2"), "out={}", (1, 4), True, ("rank-*",)),
    "fuse": Command(
        ("fuse", "rows.jsonl", "fusion_engine=template", "unit_rows=20"),
        "out={}",
        (1, 3, 4),
        True,
        ("report.*",),
    ),
    "convert": Command(("convert", "clip", "naming=ours"), "out={}", (1, 2), False),
    "export": Command(("export", "clip", "towers=[text]"), "out={}", (1, 2), False),
    "data synth-nuscenes": Command(
        ("data", "synth-nuscenes", "{}", "scenes=2", "frames=1", "size=64x36"), "", (30,), False
    ),
    "data emoji-captions": Command(("data", "emoji-captions", "{}", "rows=20"), "", (1, 2), False),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, six captioned pictures and fifty rows."""
    place = tmp_path_factory.mktemp("inputs")
    save_model(zoo.create("emu3_vision_tiny"), place / "vision")
    small = ["encoder@model.image=clip_vit_tiny", "model.text.blocks.depth=1"]
    save_model(zoo.create("clip_tiny", overrides=small), place / "clip")
    (place / "pictures").mkdir()
    for number in range(6):
        values = np.random.default_rng(number).integers(0, 256, (60, 48, 3)).astype(np.uint8)
        Image.fromarray(values).save(place / "pictures" / f"{number}.png")
        (place / "pictures" / f"{number}.txt").write_text(f"picture {number}")
    rows = [{"url": f"u/{i}", "raw": f"Kite {i} over Rome", "synthetic": f"a kite {i}."} for i in range(50)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the inputs, as the working folder; what exporters of other libraries write is not looked at."""
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    written = export_folder.FORMATS["onnx"]._replace(write=lambda tower, path: path.write_bytes(b"graph" * 1000))
    monkeypatch.setitem(export_folder.FORMATS, "onnx", written)
    monkeypatch.setattr(export_folder, "largest_difference", lambda *_: 0.0)
    return tmp_path


def run(*words: str) -> int:
    """The status of a command."""
    try:
        return main(list(words))
    except SystemExit as end:
        return int(end.code or 0)


def content(path: Path) -> Any:
    """Of a file; of a shard of embeddings its columns, as the seconds beside them differ."""
    if path.suffix != ".npz":
        return path.read_bytes()
    with np.load(path) as stored:
        return {name: stored[name].tolist() for name in stored.files if name != "mmzoo"}


def visible(folder: Path) -> dict[str, Path]:
    """The files of a folder that are under their names; what fusion notes in `work` for itself is none."""
    found = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    hidden = {name for name in found if name.parts[0] == "work" or any(part.startswith(".") for part in name.parts)}
    return {str(name): path for name, path in found.items() if name not in hidden}


def halves(folder: Path) -> list[Path]:
    """Files and folders under temporary names."""
    return [path for path in folder.rglob(".*") if HALF.fullmatch(path.name)]


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_in_the_midst_of_a_file(name: str, place: Path) -> None:
    """Each file under its name is that of a run that was never killed, and the last run ends as that one."""
    command = COMMANDS[name]

    def words(folder: str) -> list[str]:
        given = [word.format(folder) for word in command.words]
        return [*given, command.out.format(folder)] if command.out else given

    def is_note(file: str) -> bool:
        return any(fnmatchcase(file, pattern) for pattern in command.notes)

    assert run(*words("whole")) == 0
    whole, out = visible(place / "whole"), place / "out"

    def work(number: int) -> None:
        kill_in_file(number)
        run(*words("out"))

    for number in command.kills:
        killed(work, number)
        assert halves(place)
        assert command.parts or not out.exists()
        for file, path in visible(out).items():
            if file.endswith(".json"):
                parsed(path.read_bytes())
            assert is_note(file) or content(path) == content(whole[file]), file
        for half in halves(place):  # a minute ago: younger ones may be another process's
            os.utime(half, (half.stat().st_atime, half.stat().st_mtime - 120))
    assert run(*words("out")) == 0
    assert visible(out).keys() == whole.keys()
    for file, path in visible(out).items():
        assert is_note(file) or content(path) == content(whole[file]), file
    assert not halves(place)


def cut(path: Path) -> None:
    """Leave the beginning of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])


def one_picture(place: Path) -> None:
    """One of the pictures is cut off."""
    cut(place / "pictures" / "2.png")


def all_pictures(place: Path) -> None:
    """All pictures are."""
    for path in (place / "pictures").glob("*.png"):
        cut(path)


def weights(place: Path) -> None:
    """The weights of both models are."""
    for name in ("clip", "vision"):
        cut(place / name / "model.safetensors")


def rows(place: Path) -> None:
    """The rows are packed, and the file is cut off."""
    (place / "rows.jsonl").write_bytes(gzip.compress((place / "rows.jsonl").read_bytes())[:-100])
    (place / "rows.jsonl").rename(place / "rows.jsonl.gz")


@pytest.mark.parametrize(
    ("name", "damage", "status", "told"),
    [
        ("embed", one_picture, 0, "1 skipped: broken image 1 (2.png)"),
        ("embed", all_pictures, 1, "6 skipped: broken image 6"),
        ("embed", weights, 1, "model.safetensors is damaged"),
        ("tokenize", one_picture, 0, "1 skipped: broken image 1 (2.png)"),
        ("tokenize", all_pictures, 1, "6 skipped: broken image 6"),
        ("tokenize", weights, 1, "model.safetensors is damaged"),
        ("fuse", rows, 1, "rows.jsonl.gz is damaged"),
        ("export", weights, 1, "model.safetensors is damaged"),
    ],
)
def test_damaged_input(
    name: str,
    damage: Callable[[Path], None],
    status: int,
    told: str,
    place: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A second time as the first: what is refused stays refused, and readers do not take what is left for a whole."""
    damage(place)
    words = [*COMMANDS[name].words, "out=out"]
    words = [f"{word}.gz" if damage is rows and word == "rows.jsonl" else word for word in words]
    for _ in range(2):
        assert run(*words) == status
        seen = capsys.readouterr()
        assert told in seen.out + seen.err
        if status:
            assert visible(place / "out").keys() <= {"manifest.json"}
        assert not halves(place)


def test_a_damaged_set_of_scenes_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word.format("out") for word in COMMANDS["data synth-nuscenes"].words]
    assert run(*words) == 0
    cut(place / "out" / "v1.0-synthetic" / "settings.json")
    assert run(*words) == 1
    assert "settings.json is damaged" in capsys.readouterr().err
