"""Encoded documents on disk: what is written is read back, damage is counted, and a killed run goes on."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from emu3_samples import MeanCodes, document, transform

from multimodal_zoo.data.code_folder import CodeFolder, Written
from multimodal_zoo.data.code_shards import VisualCodes, pack, unpack, write_codes
from multimodal_zoo.data.documents import Codes, Document, Image, Text, pair
from multimodal_zoo.data.emu3_features import Emu3Features
from multimodal_zoo.data.places import in_order
from multimodal_zoo.data.shard_counts import samples_of
from multimodal_zoo.data.skips import NoUsableSamplesError, Skips, UnusableError
from multimodal_zoo.data.tokenizing import Tokenizing


class Pictures:
    """Pictures of several sizes with a name; every number in `bad` is broken."""

    def __init__(self, count: int, bad: tuple[int, ...] = ()) -> None:
        self.count, self.bad, self.skips = count, bad, Skips()
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Document:
        self.read.append(index)
        if index in self.bad:
            raise UnusableError("broken image", str(index))
        wide = 400 if index == 7 else 16 + 8 * (index % 2)  # one is too wide for the rule
        return pair(np.full((16, wide, 3), 8 * index, np.uint8), f"picture {index}", {"key": f"p/{index}"})


def job(encoder: Any = None, **changes: Any) -> Tokenizing:
    return Tokenizing(encoder or MeanCodes(), transform(), torch.device("cpu"), **({"shard_size": 4} | changes))


def equal(one: Document, other: Document) -> bool:
    for a, b in zip(one.segments, other.segments, strict=True):
        if isinstance(a, Codes):
            assert isinstance(b, Codes)
            assert np.array_equal(a.codes, b.codes)
            assert a.rate == b.rate
        else:
            assert a == b
    return one.key == other.key


def test_documents_are_read_back(tmp_path: Path) -> None:
    documents = [
        document(1),
        Document(
            [Text("é", "user"), Codes(np.zeros((2, 3, 4), int), 24.0), Codes(np.full((1, 1), 70000))], {"key": "b"}
        ),
        Document([Text("only text")], {"key": "c", "keywords": ("x", "y"), "odd": object()}),
    ]
    write_codes(tmp_path / "a.tar", documents, 0)
    reader = VisualCodes(str(tmp_path / "a.tar"))
    found = list(reader)
    assert all(equal(one, other) for one, other in zip(documents, found, strict=True))
    assert found[2].meta["keywords"] == ["x", "y"]
    assert "odd" not in found[2].meta
    first = (tmp_path / "a.tar").read_bytes()
    write_codes(tmp_path / "a.tar", documents, 0)
    assert (tmp_path / "a.tar").read_bytes() == first  # the same documents give the same bytes
    with pytest.raises(ValueError, match="has a image that is not encoded"):
        pack(Document([Image(np.zeros((8, 8), np.uint8))]))


@pytest.mark.parametrize(
    "change",
    [
        {"json": b"{"},
        {"json": b'{"segments": [{"codes": 3}], "meta": {}}'},
        {"json": b'{"segments": 4, "meta": {}}'},
        {"json": b"[]"},
        {"0.npy": b"no array"},
        {"0.npy": b""},
    ],
)
def test_damaged_samples_are_named(change: dict[str, bytes]) -> None:
    with pytest.raises(UnusableError, match="broken codes: k"):
        unpack({"__key__": "k", **pack(document(1)), **change})


def test_arrays_with_pickles_are_never_run() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for content in (
        buffer.getvalue(),
        _saved(np.zeros((2, 2))),
        _saved(np.zeros(3, int)),
        _saved(np.zeros((0, 2), int)),
    ):
        with pytest.raises(UnusableError, match="broken codes"):
            unpack({"__key__": "k", **pack(document(1)), "0.npy": content})


def _saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_damage_costs_its_own_samples(tmp_path: Path) -> None:
    write_codes(tmp_path / "a.tar", [document(i) for i in range(3)], 0)
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name, content in (("x.json", b"{"), ("y.json", pack(Document([Text("t")]))["json"])):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    reader = VisualCodes(str(tmp_path / "{a,b}.tar"))
    assert len(list(reader)) == 4
    assert reader.skips.counts == {"broken codes": 1}
    with pytest.raises(FileNotFoundError, match=r"data\.train\.sources"):
        VisualCodes(str(tmp_path / "none.tar"))
    with pytest.raises(ValueError, match="streams is 0"):
        VisualCodes(str(tmp_path / "a.tar"), streams=0)


def test_pictures_are_encoded_in_parts(tmp_path: Path) -> None:
    folder = CodeFolder(tmp_path / "codes")
    folder.claim({"weights": "w"})
    state = job()(in_order(Pictures(11, bad=(2,))), folder)
    assert (state.documents, state.shards) == (9, 3)
    assert state.skipped == {"broken image": 1, "picture of a shape that is not encoded": 1}
    assert folder.finish()
    reader = VisualCodes(str(folder.path / "*.tar"))
    assert samples_of(reader, "data.train") == 9
    encoder = MeanCodes()
    for one in reader:
        number = int(one.key.removeprefix("p/"))
        (pixels,) = transform()([Pictures(11)[number].image])
        picture, text = one.segments
        assert torch.equal(torch.from_numpy(picture.codes).long(), encoder.encode(pixels[None])[0])
        assert text == Text(f"picture {number}")


@pytest.mark.parametrize("format", ["shards", "features"])
def test_a_killed_run_goes_on(format: str, tmp_path: Path) -> None:
    class Killed(MeanCodes):
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            if len(self.calls) == 5:
                raise KeyboardInterrupt
            return super().encode(pixels)

    whole, half = CodeFolder(tmp_path / "whole", format), CodeFolder(tmp_path / "half", format)
    for folder in (whole, half):
        folder.claim({})
    job()(in_order(Pictures(20, bad=(2,))), whole)
    with pytest.raises(KeyboardInterrupt):
        job(Killed())(in_order(Pictures(20, bad=(2,))), half)
    assert not half.finish()
    (half.path / ".000-00001.0123456789ab.tar").touch()  # what a killed writer leaves
    half.claim({})
    reader = Pictures(20, bad=(2,))
    state = job()(in_order(reader), half)
    assert 0 not in reader.read  # what was written is not read again
    assert job()(in_order(Pictures(20)), half).documents == state.documents  # and once complete, nothing is
    assert whole.finish()
    assert half.finish()
    files = sorted(str(path.relative_to(whole.path)) for path in whole.path.rglob("*") if path.is_file())
    assert files == sorted(str(path.relative_to(half.path)) for path in half.path.rglob("*") if path.is_file())
    assert (whole.path / "rank-000.json").read_bytes() == (half.path / "rank-000.json").read_bytes()
    for name in files:
        if name.endswith((".tar", "sizes.json")):
            assert (whole.path / name).read_bytes() == (half.path / name).read_bytes()


def test_ranks_write_parts_of_their_own(tmp_path: Path) -> None:
    ranks = [CodeFolder(tmp_path / "codes", rank=rank, ranks=2) for rank in range(2)]
    for rank, folder in enumerate(ranks):
        folder.claim({})
        job()(in_order(Pictures(6), rank, 2), folder)
        assert folder.finish() == (rank == 1)
    keys = [one.key for one in VisualCodes(str(tmp_path / "codes" / "*.tar"))]
    assert sorted(keys) == [f"p/{i}" for i in range(6)]


def test_features_are_emu3_own_layout(tmp_path: Path) -> None:
    folder = CodeFolder(tmp_path / "codes", "features")
    folder.claim({})
    job()(in_order(Pictures(5)), folder)
    assert folder.finish()
    listed = json.loads((folder.path / "list" / "train.json").read_text())
    assert listed["path_list"] == [f"p-{i}.pth" for i in range(5)]
    content = torch.load(folder.path / "feature" / "p-3.pth", weights_only=False)
    assert content["name"] == "p/3"
    assert content["images"].shape == (2, 3)
    assert content["texts"] == "picture 3"
    assert Emu3Features(str(folder.path / "list" / "train.json"))[3].text == "picture 3"


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    folder = CodeFolder(tmp_path / "codes")
    folder.claim({"weights": "a", "data": {"type": "x"}})
    folder.claim({"weights": "a", "data": {"type": "x"}})
    with pytest.raises(ValueError, match="with other weights, data"):
        folder.claim({"weights": "b", "data": {"type": "y"}})
    with pytest.raises(ValueError, match="with other format"):
        CodeFolder(tmp_path / "codes", "features").claim({"weights": "a", "data": {"type": "x"}})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(ValueError, match="other things"):
        CodeFolder(tmp_path / "full").claim({})
    (folder.path / "rank-000.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        folder.written()
    for bad in ({"format": "zip"}, {"rank": 2, "ranks": 2}):
        with pytest.raises(ValueError, match=r"format|rank"):
            CodeFolder(tmp_path / "other", **bad)
    with pytest.raises(ValueError, match="is a file"):
        CodeFolder(tmp_path / "full" / "mine.txt")
    with pytest.raises(ValueError, match="shard_size: 0"):
        job(shard_size=0)
    empty = CodeFolder(tmp_path / "empty")
    empty.claim({})
    with pytest.raises(NoUsableSamplesError, match="broken image"):
        job()(in_order(Pictures(2, bad=(0, 1))), empty)


def test_a_name_that_two_documents_have_is_refused_where_it_is_a_file(tmp_path: Path) -> None:
    folder, state = CodeFolder(tmp_path / "codes", "features"), Written()
    folder.claim({})
    same = [Document([Text("t"), Codes(np.zeros((2, 2), np.int32))], {"key": key}) for key in ("a/b", "c", "a-b")]
    with pytest.raises(ValueError, match=r"two documents are named 'a-b'.*a-b\.pth"):
        folder.write(same, state)
    assert folder.written() == Written()  # nothing counts as done


def test_arrays_that_claim_a_terabyte_or_hold_no_codes_are_broken() -> None:
    header = io.BytesIO()
    shape = {"descr": "<i4", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    np.lib.format.write_array_header_1_0(header, shape)
    numbers = np.array([[1 << 40]], dtype=np.int64)
    for content in (header.getvalue() + bytes(64), _saved(numbers), _saved(numbers.astype(np.uint64) << 23)):
        with pytest.raises(UnusableError, match="broken codes"):
            unpack({"__key__": "k", **pack(document(1)), "0.npy": content})
    with pytest.raises(UnusableError, match="broken codes"):
        unpack({"__key__": "k", **pack(document(1)), "json": b'{"segments": [{"codes": Infinity}], "meta": {}}'})


def test_half_a_surrogate_pair_in_a_text_is_kept() -> None:
    told = Document([Text("cut \ud83d off")], {"key": "k"})
    assert unpack({"__key__": "k", **pack(told)}).segments == told.segments


def test_names_that_are_no_utf8_are_kept_in_the_state(tmp_path: Path) -> None:
    folder, name = CodeFolder(tmp_path / "codes"), "caf\udce9.png"
    folder.claim({"data": name})
    folder.write([], Written(skipped={"broken image": 1}, examples={"broken image": [name]}))
    assert folder.written().examples == {"broken image": [name]}
    folder.claim({"data": name})
