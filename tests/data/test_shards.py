from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.data import shards
from multimodal_zoo.data.shards import expand, opener, read_shard, read_text
from multimodal_zoo.data.skips import NoUsableSamplesError, Skips
from multimodal_zoo.data.webdataset_pairs import WebdatasetPairs


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def reader(*sources: str) -> WebdatasetPairs:
    return WebdatasetPairs(list(sources), streams=2, shuffle=4, samples_per_epoch=None)


def test_patterns(make_shards: Callable[..., list[str]], tmp_path: Path) -> None:
    paths = make_shards([1, 1, 1])
    assert expand(f"{tmp_path}/shards/{{00000..00002}}.tar", "k") == paths
    assert expand([f"{tmp_path}/shards/*.tar", paths[0]], "k") == paths
    assert expand(f"{paths[1]}::{paths[0]}", "k") == [paths[1], paths[0]]
    assert expand("https://host/{1..2}.tar", "k") == ["https://host/1.tar", "https://host/2.tar"]
    with pytest.raises(FileNotFoundError, match=r"data\.x: no shard at .*9\.tar"):
        expand(f"{tmp_path}/shards/9.tar", "data.x")


def test_s3_addresses_go_through_the_command_line_quoted() -> None:
    assert opener("s3://bucket/a b;c.tar") == "pipe:aws s3 cp 's3://bucket/a b;c.tar' -"
    assert opener("https://host/1.tar") == "https://host/1.tar"


def test_pairs(make_shards: Callable[..., list[str]]) -> None:
    data = reader(*make_shards([3, 2]))
    documents = list(data)
    assert [document.text for document in documents] == [f"c{n}" for n in range(5)]
    assert [document.key for document in documents] == [f"{n:05d}" for n in range(5)]
    assert documents[4].image.getpixel((0, 0))[0] == 4
    assert documents[0].meta["url"] == "u"
    assert not len(data.skips)


def test_unusable_samples_are_counted(make_tar: Callable[..., Path]) -> None:
    members = [
        ("good.png", png()),
        ("good.txt", b" a caption "),
        ("broken.jpg", b"\xff\xd8\xff nothing"),
        ("broken.txt", b"x"),
        ("cut.png", png()[:45]),
        ("cut.txt", b"x"),
        ("lonely.png", png()),
        ("blank.png", png()),
        ("blank.txt", b"  \n"),
        ("texts.txt", b"no image"),
        ("by_json.webp", png()),
        ("by_json.json", json.dumps({"caption": "from json"}).encode()),
        ("odd.png", png()),
        ("odd.txt", b"\xff\xfe not utf-8"),
        ("odd.json", b"{broken"),
    ]
    data = reader(str(make_tar("a.tar", members)))
    assert [d.text for d in data] == ["a caption", "from json", "\ufffd\ufffd not utf-8"]
    assert data.skips.counts == {"broken image": 2, "missing caption": 2, "missing image": 1}
    assert "broken image 2 (broken, cut)" in str(data.skips)


def test_truncated_tar_gives_what_is_whole(make_shards: Callable[..., list[str]]) -> None:
    first, second = make_shards([4, 2])
    whole = Path(first).read_bytes()
    Path(first).write_bytes(whole[: len(whole) // 2])
    data = reader(first, second)
    texts = [document.text for document in data]
    assert texts[:1] == ["c0"]
    assert texts[-2:] == ["c4", "c5"]
    assert 3 <= len(texts) < 6
    assert data.skips.counts["truncated or damaged tar"] == 1


@pytest.mark.parametrize("blocks", [4, 6, 9])
def test_tar_cut_between_its_members_is_noticed(make_shards: Callable[..., list[str]], blocks: int) -> None:
    (path,) = make_shards([4])
    Path(path).write_bytes(Path(path).read_bytes()[: 512 * blocks])
    data = reader(path)
    assert [document.text for document in data] == ["c0"]
    assert data.skips.counts["truncated or damaged tar"] == 1


def test_files_that_are_no_tar(tmp_path: Path, make_shards: Callable[..., list[str]]) -> None:
    (good,) = make_shards([1])
    (tmp_path / "text.tar").write_text("hello" * 500)
    (tmp_path / "empty.tar").write_bytes(b"")
    data = reader(good, str(tmp_path / "text.tar"), str(tmp_path / "empty.tar"))
    assert len(list(data)) == 1
    assert data.skips.counts == {"truncated or damaged tar": 2}


@pytest.mark.parametrize("name", ["../../escape.png", "/etc/passwd.png", "a/../../b.png", "..\\up.png", "C:\\x.png"])
def test_paths_outside_the_folder_are_refused(make_tar: Callable[..., Path], name: str) -> None:
    members = [("a.png", png()), ("a.txt", b"a"), ("x.txt", b"x"), (name, png()), ("b.png", png()), ("b.txt", b"b")]
    data = reader(str(make_tar("evil.tar", members)))
    assert [document.text for document in data] == ["a"]
    assert data.skips.counts == {"tar with a path outside its folder": 1}
    assert name in str(data.skips) or repr(name)[1:-1] in str(data.skips)


def test_links_and_devices_are_ignored(make_tar: Callable[..., Path], tmp_path: Path) -> None:
    link = tarfile.TarInfo("b.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    hard = tarfile.TarInfo("b.json")
    hard.type, hard.linkname = tarfile.LNKTYPE, "a.txt"
    device = tarfile.TarInfo("c.png")
    device.type = tarfile.CHRTYPE
    members = [("a.png", png()), ("a.txt", b"a"), ("b.png", png())]
    data = reader(str(make_tar("links.tar", members, [link, hard, device])))
    assert [document.text for document in data] == ["a"]
    assert data.skips.counts == {"missing caption": 1}


def test_members_beyond_the_bound_are_left_out_unread_and_named(
    make_tar: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "LARGEST", 1 << 12)
    members = [("a.png", png()), ("a.txt", b"a"), ("b.png", bytes(4097)), ("b.txt", b"b"), ("c.png", png())]
    path = make_tar("huge.tar", [*members, ("c.txt", b"c" * 4096)])
    data = reader(str(path))
    assert [document.key for document in data] == ["a", "c"]
    assert data.skips.counts == {"over-large file in tar": 1, "missing image": 1}
    assert f"{path}: b.png has 4,097 bytes, at most 4,096 are read" in str(data.skips)


def test_a_member_that_claims_a_terabyte_asks_for_no_memory(make_tar: Callable[..., Path]) -> None:
    huge = tarfile.TarInfo("b.png")
    huge.size = 1 << 40
    path = make_tar("huge.tar", [("a.png", png()), ("a.txt", b"a")])
    path.write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
    skips = Skips()
    assert list(read_shard(str(path), skips)) == []
    assert skips.counts == {"over-large file in tar": 1, "truncated or damaged tar": 1}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (tarfile.XHDTYPE, "a header of 1,099,511,627,776 bytes; at most 1,048,576 are read"),
        (tarfile.GNUTYPE_LONGNAME, "a header of 1,099,511,627,776 bytes; at most 1,048,576 are read"),
        (b"Q", "a member of unknown kind and 1,099,511,627,776 bytes"),
    ],
)
def test_headers_that_claim_a_terabyte_are_not_followed(make_tar: Callable[..., Path], kind: bytes, said: str) -> None:
    header = tarfile.TarInfo("long")
    header.type, header.size = kind, 1 << 40
    path = make_tar("header.tar", [("a.png", png()), ("a.txt", b"a")])
    path.write_bytes(path.read_bytes()[: 4 * 512] + header.tobuf(tarfile.GNU_FORMAT) + bytes(512 * 20))
    skips = Skips()
    assert list(read_shard(str(path), skips)) == []  # a's last member may be in what follows
    assert said in str(skips)


def test_texts_beside_shards_name_themselves(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_bytes(b"caf\xe9")
    with pytest.raises(ValueError, match=r"classnames\.txt is damaged or no text in UTF-8 \(UnicodeDecodeError"):
        read_text(str(tmp_path / "classnames.txt"))
    with (tmp_path / "sizes.json").open("wb") as file:
        file.truncate(1 << 25)
    with pytest.raises(ValueError, match=r"sizes\.json has more than 16,777,216 bytes"):
        read_text(str(tmp_path / "sizes.json"))


def test_repeated_names(make_tar: Callable[..., Path]) -> None:
    data = reader(str(make_tar("twice.tar", [("a.txt", b"1"), ("a.txt", b"2"), ("a.png", png())])))
    assert [document.text for document in data] == ["1"]
    assert data.skips.counts == {"repeated file name in tar": 1}


def test_nothing_usable(make_tar: Callable[..., Path]) -> None:
    data = reader(str(make_tar("bad.tar", [("a.png", png()), ("b.txt", b"b")])))
    with pytest.raises(NoUsableSamplesError, match=r"2 skipped: missing caption 1 \(a\), missing image"):
        list(data)


def test_remote_shards(make_shards: Callable[..., list[str]], tmp_path: Path) -> None:
    make_shards([2, 1])

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/shards/{{00000..00002}}.tar"
        data = reader(address)
        assert [document.text for document in data] == ["c0", "c1", "c2"]
        assert sum(data.skips.counts.values()) == 1  # 00002.tar is not there
    finally:
        server.shutdown()
        server.server_close()


def test_pipes(make_shards: Callable[..., list[str]]) -> None:
    (path,) = make_shards([2])
    assert len(list(read_shard(f"pipe:cat {path}", Skips()))) == 2
