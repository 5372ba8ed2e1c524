"""Captions in tars: img2dataset's own, compressed ones, cut off or damaged ones, odd members."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from multimodal_zoo.captions import tar_walk
from multimodal_zoo.captions.opening import open_source
from multimodal_zoo.captions.row_rules import RowRules
from multimodal_zoo.captions.sources import BrokenFileError
from multimodal_zoo.registry import build

CONF = Path(__file__).parents[2] / "conf" / "caption_source"


def picture(kind: str = "jpeg") -> bytes:
    stored = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 60)).save(stored, kind)
    return stored.getvalue()


JPEG, PNG = picture(), picture("png")


def pack(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.GNU_FORMAT, mode: str = "w") -> str:
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def facts(number: int, **more: Any) -> dict[str, Any]:
    """What img2dataset writes of a picture, and a synthetic caption that it carried along."""
    return {
        "url": f"https://example.org/{number}.jpg",
        "caption": f"alt {number}",
        "laion_coco": f"a photo of {number}",
        "key": f"{number:09d}",
        "status": "success",
        "width": 8,
        **more,
    }


def sample(number: int, values: Mapping[str, Any] | None = None, image: bytes = JPEG) -> list[tuple[str, bytes]]:
    values = facts(number) if values is None else values
    name = f"{number:09d}"
    texts = [(f"{name}.json", json.dumps(values).encode()), (f"{name}.txt", str(values.get("caption")).encode())]
    return [(f"{name}.jpg", image), *texts]


#: Bytes of one sample in a tar.
SIZE = sum(512 + -(-len(content) // 512) * 512 for _, content in sample(0))


def shard(path: Path, rows: int, form: int = tarfile.GNU_FORMAT, mode: str = "w") -> str:
    return pack(path, [member for number in range(rows) for member in sample(number)], form, mode)


def read(source: Any, size: int = 4) -> list[Any]:
    return [row for unit in source.units(size) for row in source.read(unit)]


@pytest.mark.parametrize("name", ["auto", "img2dataset"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shards_of_img2dataset_are_read_as_they_are(tmp_path, name: str, form: int) -> None:
    shard(tmp_path / "00000.tar", 9, form)
    (tmp_path / "00000_stats.json").write_text(json.dumps({"count": 11, "successes": 9}))
    (tmp_path / "00000.parquet").write_bytes(b"img2dataset's own notes")
    source = build({**yaml.safe_load((CONF / f"{name}.yaml").read_text()), "path": str(tmp_path)})
    rows = read(source)
    assert [row.raw for row in rows] == [f"alt {n}" for n in range(9)]
    assert rows[4].synthetic == ("a photo of 4",)
    assert rows[4].key == hashlib.sha256(b"https://example.org/4.jpg").hexdigest()
    assert rows[4].image == JPEG
    assert {row.problem for row in rows} == {None}
    assert "txt" not in rows[4].extra  # it repeats the caption
    assert rows[4].extra["key"] == "000000004"
    assert source.kinds() == {"url": "text", "key": "text", "status": "text", "width": "integer"}
    assert [(unit.start, unit.stop) for unit in source.units(100)] == [(0, 9)]


@pytest.mark.parametrize(("suffix", "mode"), [(".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")])
def test_compressed_tars_are_read_from_the_middle_too(tmp_path, suffix: str, mode: str) -> None:
    source = open_source(shard(tmp_path / f"a{suffix}", 7, mode=mode))
    units = source.units(3)
    assert [row.raw for unit in units[::-1] for row in source.read(unit)] == [f"alt {n}" for n in (6, 3, 4, 5, 0, 1, 2)]


def test_a_text_alone_is_the_raw_caption(tmp_path) -> None:
    members = [("d/a.txt", b" web \n"), ("d/a.png", PNG), ("d/b.txt", b"caf\xe9"), ("d/b.png", PNG), ("d/c.png", PNG)]
    source = open_source(pack(tmp_path / "a.tar", members), rules=RowRules(required=["raw"]))
    rows = read(source)
    assert [(row.raw, row.image) for row in rows] == [("web", PNG), ("caf\ufffd", PNG), ("", PNG)]
    assert rows[0].key == hashlib.sha256(b"a.tar/d/a").hexdigest()
    assert [row.problem for row in rows] == [
        None,
        "txt is not UTF-8: unexpected end of data at byte 3",
        "no raw caption",
    ]


def test_odd_samples_are_rows_with_a_problem(tmp_path) -> None:
    odd: list[list[tuple[str, bytes]]] = [
        sample(0),
        [("000000001.jpg", JPEG), ("000000001.json", b'{"caption": '), ("000000001.txt", b"alt 1")],
        [("000000002.jpg", b"no picture"), *sample(2)[1:]],
        sample(3, {**facts(3), "caption": None}),
        sample(4, {**facts(4), "caption": "a" * 20_000}),
        [*sample(5), ("000000005.jpg", JPEG)],
        [("../up.jpg", JPEG), ("../up.json", json.dumps(facts(6)).encode())],
        [("000000007.json", b"[1, 2]")],
        [*sample(8), ("000000008.cls", b"3")],
    ]
    rows = read(open_source(pack(tmp_path / "a.tar", [member for one in odd for member in one])), 2)
    problems = [row.problem or "" for row in rows]
    parts = ["", "no JSON", "broken image", "no raw caption", "20000 characters", "two members", "outside", "list", ""]
    for found, part in zip(problems, parts, strict=True):
        assert part in found if part else not found, (found, part)
    assert len({row.key for row in rows}) == len(odd)


def test_links_folders_and_hidden_members_are_left_out(tmp_path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for kind, name in ((tarfile.DIRTYPE, "d"), (tarfile.SYMTYPE, "d/a.txt"), (tarfile.CHRTYPE, "d/b.txt")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            tar.addfile(info)
        for name, content in [("./._x.jpg", b"junk"), *sample(1)]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    rows = read(open_source(tmp_path / "a.tar"))
    assert [row.raw for row in rows] == ["alt 1"]


def test_members_beyond_what_is_read_are_said_to_be(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tar_walk, "LARGEST_IMAGE", len(JPEG) - 1)
    row = read(open_source(shard(tmp_path / "a.tar", 1)))[0]
    assert row.image is None
    assert row.problem == f"member .jpg has {len(JPEG)} bytes; at most {len(JPEG) - 1} are read"


def test_long_names_are_read_whole(tmp_path) -> None:
    long = "folder/" * 30 + "name"
    for number, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        members = [(f"{long}{n}.json", json.dumps({"raw": f"ü{n}", "synthetic": "s"}).encode()) for n in range(4)]
        path = pack(tmp_path / f"{number}.tar", members, form)
        rows = read(open_source(path), 3)
        assert [row.raw for row in rows] == ["ü0", "ü1", "ü2", "ü3"]
        assert rows[3].key == hashlib.sha256(f"{number}.tar/{long}3".encode()).hexdigest()


def test_a_tar_cut_off_anywhere_is_an_error_or_keeps_what_is_whole(tmp_path) -> None:
    content = Path(shard(tmp_path / "a.tar", 4)).read_bytes()
    size = SIZE
    for cut in (0, 100, 512, size - 512, size, size + 700, 2 * size + 512, 4 * size - 1, 4 * size, 4 * size + 100):
        path = tmp_path / "b.tar"
        path.write_bytes(content[:cut])
        with pytest.raises(BrokenFileError, match=r"b.tar .*source.broken_files=report"):
            read(open_source(path))
        source = open_source([tmp_path / "a.tar", path], broken_files="report")
        units = [unit for unit in source.units(3) if unit.file == str(path)]
        assert "b.tar" in (units[-1].problem or "")
        rows = [row.raw for unit in units[:-1] for row in source.read(unit)]
        assert rows == [f"alt {n}" for n in range(len(rows))]
        assert len(rows) >= min(cut // size, 4) - 1


def test_damaged_headers_and_streams_are_found(tmp_path) -> None:
    content = bytearray(Path(shard(tmp_path / "a.tar", 4)).read_bytes())
    size = SIZE
    content[size + 150] ^= 1  # in the checksum of the second sample's first header
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(BrokenFileError, match=r"a.tar is damaged or cut off at byte \d+; replace it"):
        read(open_source(tmp_path / "a.tar"))
    packed = bytearray(gzip.compress(bytes(content[:size]) * 300))
    packed[len(packed) // 2] ^= 255
    (tmp_path / "b.tar.gz").write_bytes(packed)
    with pytest.raises(BrokenFileError, match=r"b.tar.gz"):
        read(open_source(tmp_path / "b.tar.gz"))


@pytest.mark.parametrize("written", [b"-0000000001\0", b"\xff" * 12], ids=["octal", "base 256"])
def test_a_size_below_nothing_neither_reads_all_nor_walks_for_ever(tmp_path, written: bytes) -> None:
    path = pack(tmp_path / "00000.tar", [*sample(0), *sample(1)])
    content = bytearray(Path(path).read_bytes())
    content[124:136] = written
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    Path(path).write_bytes(content)
    with pytest.raises(BrokenFileError, match=r"00000\.tar is damaged"):
        list(tar_walk.TarWalk(path).records())


@pytest.mark.parametrize("stated", [3, 5])
def test_notes_of_img2dataset_that_are_wrong_are_found(tmp_path, stated: int) -> None:
    path = shard(tmp_path / "a.tar", 4)
    (tmp_path / "a_stats.json").write_text(json.dumps({"successes": stated}))
    with pytest.raises(BrokenFileError, match=r"a.tar (has more than the 3 samples|ended after row 4)"):
        read(open_source(path), 10)
    for size in (3, 10):  # the tar itself is whole
        assert len(read(open_source(path, broken_files="report"), size)) == 4


def test_an_empty_tar_has_no_units(tmp_path) -> None:
    pack(tmp_path / "a.tar", [])
    shard(tmp_path / "b.tar", 1)
    assert [unit.file for unit in open_source(tmp_path).units(5)] == [str(tmp_path / "b.tar")]
