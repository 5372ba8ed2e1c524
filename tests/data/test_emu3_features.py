"""Emu3's own fine-tuning files: what its preparation writes is read, and nothing in a file is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.emu3_features import Emu3Features, Emu3RawList, read_feature, write_feature, write_list
from multimodal_zoo.data.size_rule import area_size
from multimodal_zoo.data.skips import UnusableError

CODES = np.arange(6).reshape(2, 3)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    names = [write_feature(tmp_path, Document([Codes(CODES + i), Text(f"t{i}")], {"key": f"k/{i}"})) for i in range(3)]
    moved = tmp_path.with_name("moved")
    path = write_list(tmp_path, names)
    assert json.loads(path.read_text())["prefix"] == str(tmp_path / "feature")
    tmp_path.rename(moved)  # the folder that the list names is gone
    reader = Emu3Features(str(moved / "list" / "train.json"))
    assert len(reader) == 3
    for i, one in enumerate(reader):
        text, picture = one.segments
        assert text == Text(f"t{i}")
        assert np.array_equal(picture.codes, CODES + i)
        assert one.key == f"k/{i}"


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int16, np.uint16])
@pytest.mark.parametrize("zipped", [True, False])
def test_files_of_old_and_new_torch(dtype: type, zipped: bool, tmp_path: Path) -> None:
    content = {"name": "n", "images": CODES.astype(dtype), "texts": ["a", "b"]}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert np.array_equal(read_feature(tmp_path / "a.pth")["images"], CODES)


def test_arrays_pickled_by_the_first_numpy(tmp_path: Path) -> None:
    torch.save({"name": "n", "images": CODES, "texts": "a"}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as new, zipfile.ZipFile(tmp_path / "old.pth", "w") as old:
        for name in new.namelist():
            old.writestr(name, new.read(name).replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert np.array_equal(read_feature(tmp_path / "old.pth")["images"], CODES)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"name": Evil(), "images": CODES, "texts": "a"}, tmp_path / "a.pth")
    with pytest.raises(UnusableError, match="broken feature file"):
        read_feature(tmp_path / "a.pth")
    assert not Path("evil").exists()


@pytest.mark.parametrize(
    "content",
    [{"name": "n"}, {"images": np.zeros((2, 2))}, {"images": np.zeros(3, int)}, {"images": CODES[:0]}, [1, 2]],
)
def test_damaged_files_are_named(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"no file of torch")
    (tmp_path / "c.pth").write_bytes(pickle.dumps(content)[:5])
    for name, reason in (("a", "broken"), ("b", "broken"), ("c", "broken"), ("none", "missing")):
        with pytest.raises(UnusableError, match=f"{reason} feature file.*{name}.pth"):
            read_feature(tmp_path / f"{name}.pth")


def test_a_leading_axis_of_one_is_dropped(tmp_path: Path) -> None:
    torch.save({"images": CODES[None], "texts": "a"}, tmp_path / "a.pth")
    assert read_feature(tmp_path / "a.pth")["images"].shape == (2, 3)


def test_lists_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data\.train\.table"):
        Emu3Features(str(tmp_path / "none.json"))
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match="prefix and path_list"):
        Emu3Features(str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text(json.dumps({"prefix": "gone", "path_list": []}))
    with pytest.raises(FileNotFoundError, match="names the folder gone"):
        Emu3Features(str(tmp_path / "a.json"))
    with pytest.raises(ValueError, match="no encoded picture"):
        write_feature(tmp_path, Document([Text("a")], {"key": "k"}))
    with pytest.raises(ValueError, match="'k' has no text; format=features"):
        write_feature(tmp_path, Document([Codes(CODES)], {"key": "k"}))
    with pytest.raises(ValueError, match="no file name"):
        write_feature(tmp_path, Document([Codes(CODES), Text("a")], {"key": "../k"}))


def test_raw_lists_are_resized_to_the_area_first(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (33, 50, 3)).astype(np.uint8)
    PilImage.fromarray(values).save(tmp_path / "a.png")
    rows = [{"name": "a", "text": "t", "image": "a.png"}, {"name": "b", "text": "t", "image": "none.png"}]
    (tmp_path / "raw.json").write_text(json.dumps(rows))
    reader = Emu3RawList(str(tmp_path / "raw.json"), area=6400)
    high, wide = area_size(33, 50, 6400)
    expected = PilImage.fromarray(values).resize((wide, high), PilImage.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(reader[0].image), np.asarray(expected))
    assert (reader[0].text, reader[0].key, len(reader)) == ("t", "a", 2)
    plain = Emu3RawList(str(tmp_path / "raw.json"), folder=str(tmp_path))
    assert np.array_equal(np.asarray(plain[0].image), values)
    with pytest.raises(UnusableError, match="missing image file: b"):
        reader[1]
    with pytest.raises(ValueError, match="area is 0"):
        Emu3RawList(str(tmp_path / "raw.json"), area=0)
    (tmp_path / "raw.json").write_text(json.dumps([{"name": "a"}]))
    with pytest.raises(ValueError, match="name, text and image"):
        Emu3RawList(str(tmp_path / "raw.json"))


def test_what_cannot_be_used_is_passed_over_and_counted(tmp_path: Path) -> None:
    (tmp_path / "feature").mkdir()
    torch.save({"name": "good", "images": CODES, "texts": ("one", "two")}, tmp_path / "feature" / "a.pth")
    torch.save({"name": "odd", "images": CODES, "texts": 5}, tmp_path / "feature" / "b.pth")
    write_list(tmp_path, ["a.pth", "b.pth", "none.pth"])
    reader = Emu3Features(str(tmp_path / "list" / "train.json"))
    assert [(document.key, document.meta["texts"]) for document in reader] == [("good", ["one", "two"])]
    assert reader.skips.counts == {"broken feature file": 1, "missing feature file": 1}
