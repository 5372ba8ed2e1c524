"""Lists of JSON lines: places of lines, what is wrong with one, worker processes, several lists as one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.config import compose
from multimodal_zoo.data import line_pairs
from multimodal_zoo.data.line_pairs import JoinedPairs, LineFile, LinePairs
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import build


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        place = tmp_path / "pictures" / "deep"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9 + number, 8), (number, 0, 0)).save(place / f"{number}.png")
    (tmp_path / "pictures" / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def write(folder: Path, rows: list[Any], name: str = "list.json", end: str = "\n") -> str:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines) + end, encoding="utf-8")
    return str(folder / name)


def row(number: int, caption: Any = "a caption", **more: Any) -> dict[str, Any]:
    return {"filename": f"deep/{number}.png", "caption": caption, **more}


@pytest.mark.parametrize("block", [3, 64, 1 << 20])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_lines_by_number(tmp_path: Path, block: int, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_pairs, "BLOCK", block)
    texts = ["one", "", "zwei ä", "drei 三", "x" * 100]
    (tmp_path / "file").write_text("\n".join(texts) + end, encoding="utf-8")
    file = LineFile(tmp_path / "file")
    assert [file[i].decode().strip() for i in range(len(file))] == [text for text in texts if text]
    again = pickle.loads(pickle.dumps(file))
    assert again[2] == file[2]
    assert file.starts.dtype == file.lengths.dtype == np.int64


def test_a_list_of_another_length_than_the_published_one_is_told(folder: Path, caplog: Any) -> None:
    table = write(folder, [row(0), row(1)])
    LinePairs(table, str(folder / "pictures"), expected=2)
    assert not caplog.records
    LinePairs(table, str(folder / "pictures"), expected=15388848)
    assert "has 2 lines, the published list has 15,388,848" in caplog.text


def test_pairs(folder: Path) -> None:
    table = write(
        folder,
        [
            row(0, "  first "),
            row(1, ["one", "two"], url="u", label=3, label_name="cat", tag=["a"], other=1),
            {"filename": "/deep/2.png", "caption": "with a stroke"},
        ],
    )
    reader = LinePairs(table, str(folder / "pictures"))
    documents = list(reader)
    assert [document.text for document in documents] == ["first", "one", "with a stroke"]
    assert [document.image.size for document in documents] == [(9, 8), (10, 8), (11, 8)]  # type: ignore[union-attr]
    assert documents[1].meta == {
        "key": "deep/1.png", "texts": ["one", "two"], "url": "u", "label": 3, "label_name": "cat", "tag": ["a"],
    }  # fmt: skip
    assert reader[-1].key == "/deep/2.png"
    assert reader.facts(0) == {"key": "deep/0.png", "texts": ["first"]}
    with pytest.raises(IndexError, match="3 lines, no number 3"):
        reader[3]


def test_what_is_wrong_with_a_line_is_counted(folder: Path) -> None:
    bad = [
        '{"filename": "deep/0.png", "caption": ',
        "[1]",
        {"caption": "no name"},
        {"filename": 3, "caption": "a number"},
        row(0, ""),
        row(0, []),
        row(0, ["", "second"]),
        row(0, None),
        row(0, "a 猫 cat"),
        {"filename": "deep/9.png", "caption": "not there"},
        {"filename": "broken.jpg", "caption": "broken"},
        {"filename": "../list.json", "caption": "outside"},
        {"filename": "a\0b.png", "caption": "no such name"},
    ]
    reader = LinePairs(write(folder, [*bad, row(3)]), str(folder / "pictures"))
    assert [document.key for document in reader] == ["deep/3.png"]
    assert reader.skips.counts == {
        "broken line": 2,
        "missing file name": 2,
        "missing caption": 4,
        "caption with refused characters": 1,
        "missing image file": 1,
        "broken image": 1,
        "path outside the folder": 1,
        "path that no file can have": 1,
    }
    assert reader.skips.examples["broken line"] == ["list.json, entry 1", "list.json, entry 2"]
    every = LinePairs(write(folder, [row(0, "a 猫 cat")]), str(folder / "pictures"), refused=None)
    assert every[0].text == "a 猫 cat"


class Letters:
    pad_id = 0

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[1, *(3 + ord(c) % 90 for c in text), 2] for text in texts]


@pytest.mark.multiprocess
def test_worker_processes_and_the_published_views(folder: Path) -> None:
    table = write(folder, [row(n % 4, f"caption {n}") for n in range(8)] + ["broken"])
    config = compose(None, ["+model=clip_tiny", "+data=clip_views", "+seed=0"])
    config.data.train.table, config.data.train.folder = table, str(folder / "pictures")
    node = build({"node": config.model.processor.images})
    processor = ImageTextProcessor(node["node"], Letters())
    batches = []
    for workers in (0, 2):
        config.data.workers, config.data.batch_size = workers, 3
        from omegaconf import OmegaConf

        made = {**OmegaConf.to_container(config.data, resolve=True), "processor": processor}  # type: ignore[dict-item]
        data = build(made)
        batches.append([(batch.keys, batch.images["plain"].sum().item()) for batch in data.train_dataloader()])
        assert data.train.skips.counts == {"broken line": 1}
    assert batches[0] == batches[1]
    assert len(batches[0]) == 3


def test_joined_lists(folder: Path) -> None:
    first = LinePairs(write(folder, [row(0), "broken"], "a.json"), str(folder / "pictures"))
    second = LinePairs(write(folder, [row(1), row(2)], "b.json"), str(folder / "pictures"))
    joined = JoinedPairs({"a": first, "b": second})
    assert len(joined) == 4
    assert [joined[i].key for i in (0, 2, 3, -1)] == ["deep/0.png", "deep/1.png", "deep/2.png", "deep/2.png"]
    with pytest.raises(UnusableError, match="broken line"):
        joined[1]
    assert [document.key for document in joined] == ["deep/0.png", "deep/1.png", "deep/2.png"]
    assert joined.skips.counts == {"broken line": 1}
    with pytest.raises(IndexError):
        joined[4]
    for readers, message in (({}, "it is empty"), ({"tars": object()}, "tars has no numbered samples")):
        with pytest.raises(ValueError, match=message):
            JoinedPairs(readers)  # type: ignore[arg-type]


def test_bad_settings(folder: Path) -> None:
    table = write(folder, [row(0)])
    with pytest.raises(FileNotFoundError, match=r"data.train.table: no file"):
        LinePairs(str(folder / "none.json"), str(folder))
    with pytest.raises(FileNotFoundError, match=r"data.train.folder: no folder"):
        LinePairs(table, str(folder / "none"))
    with pytest.raises(ValueError, match=r"data.train.refused is '\['"):
        LinePairs(table, str(folder), refused="[")
    with pytest.raises(ValueError, match="has no line"):
        LinePairs(write(folder, [], end=""), str(folder))


def test_a_link_that_leads_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes((folder / "pictures" / "deep" / "3.png").read_bytes())
    (folder / "pictures" / "link.png").symlink_to(outside)
    reader = LinePairs(write(folder, [row(3), {"filename": "link.png", "caption": "out"}]), str(folder / "pictures"))
    assert [document.key for document in reader] == ["deep/3.png"]
    assert reader.skips.counts == {"path outside the folder": 1}
