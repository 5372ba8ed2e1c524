"""Reading on from a place, for numbered documents, tar shards and plain streams, and what the DATA word means."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.commands.data_source import data_overrides
from multimodal_zoo.data.folder_pairs import FolderPairs
from multimodal_zoo.data.folder_pictures import FolderPictures
from multimodal_zoo.data.places import Numbered, Stream, TarShards, in_order
from multimodal_zoo.data.webdataset_pairs import WebdatasetPairs


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path: Path) -> str:
    """Two shards of four samples; number 2 is broken, number 5 has no caption."""
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for n in range(4 * shard, 4 * shard + 4):
                add(tar, f"{n}.png", b"no" if n == 2 else png(n))
                if n != 5:
                    add(tar, f"{n}.txt", f"text {n}".encode())
    return str(tmp_path / "{0..1}.tar")


def keys(found):
    return [one.document.key for one in found]


def test_tars_go_on_behind_any_place(tars: str) -> None:
    def order(rank=0, ranks=1):
        return in_order(WebdatasetPairs(tars, 1, 1, None, need_caption=False), rank, ranks)

    everything = list(order().after(None))
    assert isinstance(order(), TarShards)
    assert keys(everything) == ["0", "1", "3", "4", "5", "6", "7"]
    assert [one.place for one in everything[:4]] == [(0, 0), (0, 1), (0, 3), (1, 0)]
    for n, one in enumerate(everything):
        again = order()
        assert keys(again.after(one.place)) == keys(everything)[n + 1 :]
        assert dict(again.skips.counts) == ({"broken image": 1} if n < 2 else {})
        assert order().at(one.place).key == one.document.key
    with pytest.raises(LookupError, match="no sample number 9"):
        order().at((0, 9))
    assert keys(order(1, 2).after(None)) == ["4", "5", "6", "7"]
    assert order().contents() == order(1, 2).contents()
    assert everything[4].document.segments[1:] == []
    with pytest.raises(ValueError, match="every rank needs one"):
        order(0, 3)
    strict = in_order(WebdatasetPairs(tars, 1, 1, None))
    assert "5" not in keys(strict.after(None))


def test_numbered_documents_and_streams(tmp_path: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.png").write_bytes(b"no" if n == 1 else png(n))
    reader = FolderPictures(str(tmp_path), need_caption=False)
    order = in_order(reader)
    assert isinstance(order, Numbered)
    assert keys(order.after((0,))) == ["2.png", "3.png", "4.png"]
    assert order.skips.counts == {"broken image": 1}
    assert (order.size(), in_order(reader, 1, 2).size()) == (5, 2)
    assert keys(in_order(reader, 0, 2).after(None)) == ["0.png", "2.png", "4.png"]
    (tmp_path / "5.png").write_bytes(png(5))
    assert in_order(FolderPictures(str(tmp_path), False)).contents() != order.contents()
    with pytest.raises(ValueError, match="ranks count from 0"):
        in_order(reader, 2, 2)

    class Plain:
        def __iter__(self):
            return (one.document for one in order.after(None))

    stream = in_order(Plain())
    assert isinstance(stream, Stream)
    assert keys(stream.after((1,))) == ["3.png", "4.png"]
    assert stream.at((0,)).key == "0.png"
    with pytest.raises(LookupError, match="no document number 9"):
        stream.at((9,))


def test_a_parquet_table_of_paths(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(2))
    table = pa.table({"path": ["a.png", "b.png", None], "caption": ["one", None, "three"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    words = data_overrides(str(tmp_path / "t.parquet"))
    assert "data=folder" in words
    assert "data.train.image='path'" in words
    read = FolderPairs(str(tmp_path / "t.parquet"), str(tmp_path), "path", "caption", need_caption=False)
    assert [[type(s).__name__ for s in document.segments] for document in read] == [["Image", "Text"], ["Image"]]
    assert read.skips.counts == {"missing image path": 1}
    (tmp_path / "broken.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match="is damaged or no parquet file"):
        data_overrides(str(tmp_path / "broken.parquet"))
    with pytest.raises(ValueError, match="both null"):
        FolderPairs(str(tmp_path / "t.parquet"), str(tmp_path), None, None)


def test_what_the_data_word_means(tmp_path: Path, tars: str) -> None:
    assert data_overrides("emoji") == ["data=emoji"]
    assert data_overrides("https://host/{0..9}.tar")[2] == "data.train.sources='https://host/{0..9}.tar'"
    assert f"data.train.sources='{tars}'" in data_overrides(tars)
    assert "data=webdataset" in data_overrides(str(tmp_path))
    (tmp_path / "a.png").write_bytes(png(1))
    assert data_overrides(str(tmp_path))[0] == "data=pictures"
    (tmp_path / "t.csv").write_text("filepath,title\na.png,one\n")
    assert "data.train.text='title'" in data_overrides(str(tmp_path / "t.csv"))
    (tmp_path / "u.csv").write_text("x,y\n1,2\n")
    (tmp_path / "empty").mkdir()
    for word, kind, message in (
        ("emojis", KeyError, "closest: emoji"),
        (str(tmp_path / "absent"), FileNotFoundError, "nothing at"),
        (str(tmp_path / "empty"), ValueError, "neither pictures nor tar shards"),
        (str(tmp_path / "u.csv"), ValueError, "has columns x, y"),
        (str(tmp_path / "a.png"), ValueError, "is no table"),
    ):
        with pytest.raises(kind, match=message):
            data_overrides(word)


def test_names_of_files_that_are_no_utf8_have_a_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    Path(os.fsdecode(os.fsencode(tmp_path / "b") + b"\xe9.png")).write_bytes(png(2))
    found = in_order(FolderPictures(str(tmp_path), need_caption=False)).contents()
    assert found["documents"] == 2
    assert len(found["keys"]) == 16
