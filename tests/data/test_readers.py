"""Folders, Hugging Face data sets, CLIP_benchmark's layout and the export of shards."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.data.clip_benchmark import ClipBenchmark
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.data.export import WebdatasetExport
from multimodal_zoo.data.folder_pairs import FolderPairs, HuggingfacePairs
from multimodal_zoo.data.pictures import open_picture
from multimodal_zoo.data.skips import NoUsableSamplesError
from multimodal_zoo.data.webdataset_pairs import WebdatasetPairs
from multimodal_zoo.registry import build


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n in range(4):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    (tmp_path / "broken.png").write_bytes(b"no")
    return tmp_path


ROWS = [
    ("0.png", "zero, with a comma", "7"),
    ("1.png", "", "7"),
    ("", "no path", "1"),
    ("2.png", "two", "8"),
    ("broken.png", "broken", "1"),
    ("absent.png", "absent", "1"),
    ("../outside.png", "outside", "1"),
]
SKIPPED = {
    "missing caption": 1,
    "missing image path": 1,
    "path outside the folder": 1,
    "broken image": 1,
    "missing image file": 1,
}


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_folder_with_a_table(folder: Path, kind: str) -> None:
    table = folder / f"table.{kind}"
    if kind == "jsonl":
        table.write_text("\n".join(json.dumps({"filepath": a, "title": b, "id": int(c)}) for a, b, c in ROWS))
    else:
        comma = "," if kind == "csv" else "\t"
        lines = [comma.join(["filepath", "title", "id"]), *(comma.join((a, f'"{b}"', c)) for a, b, c in ROWS)]
        table.write_text("\n".join(lines))
    data = FolderPairs(str(table), str(folder), "filepath", "title", "id")
    documents = list(data)
    assert [document.text for document in documents] == ["zero, with a comma", "two"]
    assert [document.image.getpixel((0, 0))[0] for document in documents] == [0, 2]
    assert [document.meta["concept"] for document in documents] == [7, 8]
    assert data.skips.counts == SKIPPED


def test_wrong_tables(folder: Path) -> None:
    (folder / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"t.csv: no column 'title'; it has a, b"):
        FolderPairs(str(folder / "t.csv"), str(folder), "a", "title")
    with pytest.raises(ValueError, match=r"must end in .csv, .tsv"):
        FolderPairs(str(folder / "t.xls"), str(folder), "a", "b")
    with pytest.raises(FileNotFoundError, match=r"data.train.table"):
        FolderPairs(str(folder / "u.csv"), str(folder), "a", "b")
    (folder / "t.csv").write_text("a,b\n,2\n")
    with pytest.raises(NoUsableSamplesError, match=r"missing image path 1 \(row 1\)"):
        FolderPairs(str(folder / "t.csv"), str(folder), "a", "b")


def test_damaged_rows_are_counted(folder: Path) -> None:
    rows = [
        {"image": "0.png", "text": "zero", "id": 3},
        {"image": "1.png"},
        {"image": "2.png", "text": "two", "id": "x"},
    ]
    lines = [*map(json.dumps, rows), "[1]", '{"image": "3.png", "te']
    (folder / "t.jsonl").write_text("\n".join(lines))
    data = FolderPairs(str(folder / "t.jsonl"), str(folder), "image", "text", "id")
    assert [document.meta["concept"] for document in data] == [3]
    assert data.skips.counts == {"missing caption": 1, "concept that is no whole number": 1, "broken row": 2}
    with pytest.raises(ValueError, match=r"t.jsonl: no column 'caption'; it has image, text, id"):
        FolderPairs(str(folder / "t.jsonl"), str(folder), "image", "caption")


def test_rows_that_the_csv_module_refuses_are_counted(folder: Path) -> None:
    rows = ["image,text,id", "0.png,zero,1", f"1.png,{'x' * 200_000},1", "a\0b.png,nul,1", f"2.png,two,{10**30}"]
    (folder / "t.csv").write_text("\n".join([*rows, "3.png,three,1"]))
    data = FolderPairs(str(folder / "t.csv"), str(folder), "image", "text", "id")
    assert [document.text for document in data] == ["zero", "three"]
    assert len(data.skips) == 3
    assert data.skips.counts["broken row"] >= 1
    assert data.skips.counts["concept that is no whole number"] == 1
    (folder / "t.csv").write_text("x" * 200_000 + "\n0.png,zero\n")
    with pytest.raises(ValueError, match=r"header cannot be read: field larger .*check data.train.table"):
        FolderPairs(str(folder / "t.csv"), str(folder), "image", "text")


def test_a_path_with_a_nul_is_counted(folder: Path) -> None:
    rows = [
        {"image": "a\0b.png", "text": "nul"},
        {"image": "\ud800.png", "text": "half"},
        {"image": "0.png", "text": "0"},
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = FolderPairs(str(folder / "t.jsonl"), str(folder), "image", "text")
    assert [document.key for document in data] == ["0.png"]
    assert data.skips.counts == {"path that no file can have": 2}


def test_a_gallery_opens_no_picture_to_choose(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodal_zoo.data import folder_pairs
    from multimodal_zoo.evaluation.samples import Gallery

    (folder / "t.csv").write_text("image,text\n" + "\n".join(f"{name}.png,{name}" for name in [*range(4), "broken"]))
    data = FolderPairs(str(folder / "t.csv"), str(folder), "image", "text")
    with monkeypatch.context() as patched:
        patched.setattr(folder_pairs, "open_picture", lambda *args, **kwargs: pytest.fail("opened a picture"))
        gallery = Gallery(data, size=9)
    assert len(gallery) == 5
    assert [document.key for document in gallery] == ["0.png", "1.png", "2.png", "3.png"]
    assert data.skips.counts == {"broken image": 1}


def test_hugging_face_data_sets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    columns = {
        "image": [{"bytes": png(0), "path": None}, {"bytes": b"no", "path": None}, {"bytes": png(2), "path": None}],
        "text": [["zero", "nought"], ["broken"], [""]],
    }
    features = datasets.Features({"image": datasets.Image(), "text": datasets.List(datasets.Value("string"))})
    saved = datasets.Dataset.from_dict(columns, features=features)
    saved.save_to_disk(str(folder / "saved"))
    datasets.DatasetDict({"test": saved}).save_to_disk(str(folder / "splits"))
    saved.to_parquet(str(folder / "a.parquet"))
    for path in ("saved", "splits", "a.parquet"):
        data = HuggingfacePairs(str(folder / path), "test", "image", "text")
        (document,) = list(data)
        assert (document.text, document.meta["texts"]) == ("zero", ["zero", "nought"])
        assert document.image.getpixel((0, 0)) == (0, 0, 0)
        assert data.skips.counts == {"broken image": 1, "missing caption": 1}
        assert data.facts(0) == document.meta
    with pytest.raises(ValueError, match=r"no column 'caption'; it has image, text"):
        HuggingfacePairs(str(folder / "saved"), "test", "image", "caption")
    with pytest.raises(ValueError, match=r"data.train.split is 'train'; .* has test"):
        HuggingfacePairs(str(folder / "splits"), "train", "image", "text")


def test_classification_in_benchmark_layout(make_tar: Callable[..., Path], tmp_path: Path) -> None:
    root = make_tar(
        "set/test/0.tar",
        [
            ("s0.webp", png(0)),
            ("s0.cls", b"1"),
            ("s1.png", png(1)),
            ("s1.cls", b"0"),
            ("s2.png", b"x"),
            ("s2.cls", b"0"),
        ],
    ).parents[1]
    make_tar("set/test/1.tar", [("s3.jpg", png(3)), ("s3.cls", b"9"), ("s4.jpg", png(4)), ("s4.cls", b"one")])
    (root / "test/nshards.txt").write_text("2\n")
    (root / "classnames.txt").write_text("cat\ndog\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na {c}\n")
    data = build({"type": "clip_benchmark", "root": str(root)})
    assert isinstance(data, ClipBenchmark)
    documents = list(data)
    assert [(document.text, document.meta["label"]) for document in documents] == [("dog", 1), ("cat", 0)]
    assert data.classnames == ["cat", "dog"]
    assert data.templates == ["a photo of a {c}.", "a {c}"]
    assert data.skips.counts == {"broken image": 1, "class beyond classnames.txt": 1, "class that is no number": 1}
    with pytest.raises(FileNotFoundError, match=r"val/nshards.txt"):
        ClipBenchmark(str(root), split="val")


def test_retrieval_in_benchmark_layout(make_tar: Callable[..., Path]) -> None:
    root = make_tar("set/test/0.tar", [("a.jpg", png(0)), ("a.txt", b"one\ntwo\n\n"), ("b.jpg", png(0))]).parents[1]
    (root / "test/nshards.txt").write_text("1")
    data = ClipBenchmark(str(root))
    (document,) = list(data)
    assert (document.text, document.meta["texts"]) == ("one", ["one", "two"])
    assert data.skips.counts == {"neither class nor caption": 1}
    assert data.classnames == []


@pytest.mark.parametrize("suffix", ["webp", "png", "jpg"])
def test_export_of_emoji_reads_as_shards(tmp_path: Path, suffix: str) -> None:
    emoji = EmojiPairs(["twemoji"], ["val"], 72)
    paths = WebdatasetExport(str(tmp_path / "out"), shard_size=60, suffix=suffix)(emoji)
    assert [path.name for path in paths] == ["00000.tar", "00001.tar", "00002.tar"]
    assert json.loads((tmp_path / "out/sizes.json").read_text()) == {"00000.tar": 60, "00001.tar": 60, "00002.tar": 55}
    assert not list((tmp_path / "out").glob("*.part"))
    data = WebdatasetPairs(str(tmp_path / "out/{00000..00002}.tar"), 1, 1, None)
    for written, read in zip(emoji, data, strict=True):
        assert read.text == written.text
        assert read.meta["concept"] == written.meta["concept"]
        assert read.meta["keywords"] == list(written.meta["keywords"])
        if suffix != "jpg":
            np.testing.assert_array_equal(np.asarray(open_picture(read.image).convert("RGBA")), written.image)
    first = paths[0].read_bytes()
    assert WebdatasetExport(str(tmp_path / "again"), 60, suffix)(emoji)[0].read_bytes() == first


def test_export_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"suffix is 'gif'"):
        WebdatasetExport(str(tmp_path), suffix="gif")
    assert WebdatasetExport(str(tmp_path))([]) == []


def test_numbers_and_names_that_are_none(make_tar: Callable[..., Path]) -> None:
    root = make_tar("set/test/0.tar", [("a.jpg", png(0)), ("a.cls", "²".encode()), ("b.jpg", png(0)), ("b.cls", b"1")])
    root = root.parents[1]
    (root / "test/nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("cat\ndog\n\n")
    data = ClipBenchmark(str(root))
    assert [document.text for document in data] == ["dog"]
    assert data.skips.counts == {"class that is no number": 1}
    (root / "test/nshards.txt").write_text("²")
    with pytest.raises(ValueError, match=r"nshards\.txt says '²'"):
        ClipBenchmark(str(root))
    (root / "test/nshards.txt").write_text("1")
    for content, message in ((b"\ncat\ndog", "line 1 is empty"), (b"caf\xe9", r"names\.txt is damaged or no text")):
        (root / "classnames.txt").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            ClipBenchmark(str(root))
