"""Copies of evaluation pictures: found however they were stored, never mixed up with other drawings, kept out."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PilImage

from multimodal_zoo import cli
from multimodal_zoo.config import compose
from multimodal_zoo.data import picture_hash as hashing
from multimodal_zoo.data.deduplicated import REASON, deduplicated
from multimodal_zoo.data.documents import Document, Image, Text, pair
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.data.picture_hash import NEAR, PictureHashes, count_bits, picture_hash, picture_hashes
from multimodal_zoo.data.pictures import to_rgb
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.registry import build


@pytest.fixture(scope="module")
def drawings() -> list[PilImage.Image]:
    pairs = EmojiPairs(["openmoji"], ["val"], 72)
    return [to_rgb(PilImage.fromarray(pairs[i].image)) for i in range(0, len(pairs), 3)]


def documents(pictures: list[PilImage.Image]) -> list[Document]:
    return [pair(picture, "text", {"key": str(number)}) for number, picture in enumerate(pictures)]


def stored(pictures: list[PilImage.Image]) -> PictureHashes:
    return PictureHashes.of(documents(pictures), Skips())


def encoded(image: PilImage.Image, kind: str = "JPEG") -> PilImage.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=70)
    return PilImage.open(buffer)


def trimmed(image: PilImage.Image) -> PilImage.Image:
    return image.crop((1, 1, image.width - 1, image.height - 1))


CHANGES: dict[str, Callable[[PilImage.Image], PilImage.Image]] = {
    "stored as JPEG": encoded,
    "stored as WebP": lambda image: encoded(image, "WEBP"),
    "half as large": lambda image: image.resize((36, 36)),
    "twice as large": lambda image: image.resize((144, 144), PilImage.Resampling.BICUBIC),
    "trimmed": trimmed,
    "all of it": lambda image: encoded(trimmed(image).resize((120, 120))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found(change: str, drawings: list[PilImage.Image]) -> None:
    store = stored(drawings)
    bits, numbers = store.nearest(stored([CHANGES[change](one) for one in drawings]).hashes)
    assert float((bits <= NEAR).mean()) > 0.9
    assert float((numbers == np.arange(len(drawings))).mean()) > 0.95


def test_other_drawings_are_not(drawings: list[PilImage.Image]) -> None:
    half = len(drawings) // 2
    first, second = drawings[:half], drawings[half:]
    bits, numbers = stored(first).nearest(stored(second).hashes)
    shown = [(np.asarray(first[i], np.int16), np.asarray(second[j], np.int16)) for j, i in enumerate(numbers)]
    different = np.array([float(np.abs(a - b).mean()) > 10 for a, b in shown])  # some emoji are drawn alike
    assert float(different.mean()) > 0.9
    assert not (different & (bits <= NEAR)).any()


def test_colour_counts_and_noise_does_not() -> None:
    grey = np.full((40, 40, 3), 128, np.uint8)
    noisy = grey + np.random.default_rng(0).integers(0, 3, grey.shape, dtype=np.uint8)
    assert not picture_hash(grey).any()
    assert not picture_hash(noisy).any()
    disc = np.hypot(*np.mgrid[-20:20, -20:20]) < 15
    red, blue = grey.copy(), grey.copy()
    red[disc], blue[disc] = (200, 30, 30), (30, 30, 200)
    assert int(count_bits(picture_hash(red) ^ picture_hash(blue)).sum()) > 2 * NEAR
    transparent = np.dstack([red, np.where(disc, 255, 0).astype(np.uint8)])
    red[~disc] = 255
    assert (picture_hash(transparent) == picture_hash(red)).all()


def test_look_up_is_exact_whatever_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    words = generator.integers(0, 1 << 63, (50, 6), dtype=np.uint64)
    store = PictureHashes([str(i) for i in range(30)], words[:30])
    plain = np.array(
        [[sum(bin(int(a ^ b)).count("1") for a, b in zip(q, s, strict=True)) for s in words[:30]] for q in words]
    )
    for block in (1 << 22, 70, 1):
        monkeypatch.setattr(hashing, "BLOCK", block)
        bits, numbers = store.nearest(words)
        assert (bits == plain.min(1)).all()
        assert (numbers == plain.argmin(1)).all()
    for query, row in zip(words, plain, strict=True):
        for distance in (0, 150, 170, 384):
            found = store.near(query, distance)
            assert found == (int(row.argmin()) if row.min() <= distance else None)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert (store.nearest(words)[0] == plain.min(1)).all()


def test_files(tmp_path: Path, drawings: list[PilImage.Image]) -> None:
    first, second = stored(drawings[:3]), stored(drawings[3:5])
    first.save(tmp_path / "a.npz")
    second.save(tmp_path / "b.npz")
    both = picture_hashes([str(tmp_path / "a.npz"), str(tmp_path / "b.npz")])
    assert both.keys == ["0", "1", "2", "0", "1"]
    assert (both.hashes == np.concatenate([first.hashes, second.hashes])).all()
    assert len(picture_hashes(str(tmp_path / "a.npz"))) == 3
    np.savez(tmp_path / "c.npz", other=1)
    (tmp_path / "d.npz").write_text("nothing")
    for name, error, message in (
        ("none.npz", FileNotFoundError, r"mmzoo dedupe DATA out=none.npz"),
        ("c.npz", ValueError, r"no file of picture hashes"),
        ("d.npz", ValueError, r"no file of picture hashes"),
    ):
        with pytest.raises(error, match=message):
            picture_hashes(str(tmp_path / name))


class Numbered:
    def __init__(self, pictures: list[PilImage.Image]) -> None:
        self.documents = documents(pictures)
        self.skips = Skips()

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> Document:
        return self.documents[index]


def test_numbered_samples(drawings: list[PilImage.Image]) -> None:
    store = stored([encoded(drawings[4]), drawings[9].resize((100, 100))])
    reader = deduplicated(Numbered(drawings[:12]), store)
    assert [document.key for document in reader] == [str(i) for i in range(12) if i not in (4, 9)]
    assert reader.skips.counts == {REASON: 2}
    assert reader.skips.examples[REASON] == ["4 (0)", "9 (1)"]
    with pytest.raises(UnusableError, match=REASON):
        reader[4]  # type: ignore[index]


def test_samples_in_memory() -> None:
    node = {"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["val"], "image_size": 72}
    whole = build(node)
    copies = [to_rgb(PilImage.fromarray(whole[i].image)) for i in (1, 5)]
    reader = deduplicated(build(node), stored(copies), distance=0)
    kept = [document.key for document in reader]
    assert whole[1].key not in kept
    assert whole[5].key not in kept
    assert len(kept) == len(reader) == len(whole) - reader.skips.counts[REASON]  # type: ignore[arg-type]
    places = [document.key for document in whole]
    assert torch.equal(reader.pixels([0, 3, 7]), whole.pixels([places.index(kept[i]) for i in (0, 3, 7)]))  # type: ignore[union-attr]
    assert reader.concepts.tolist() == [whole[places.index(key)].meta["concept"] for key in kept]  # type: ignore[union-attr]


def test_shards(make_shards: Callable[..., list[str]]) -> None:
    shards = make_shards([4])
    reader = build(
        {"type": "webdataset_pairs", "sources": shards, "streams": 1, "shuffle": 2, "samples_per_epoch": None}
    )
    first = next(iter(reader))
    wrapped = deduplicated(reader, PictureHashes.of([first], Skips()), distance=0)
    assert list(wrapped) == []  # flat pictures of one colour each: all the same to a hash of differences
    assert reader.skips.counts == {REASON: 4}
    assert (wrapped.shards, wrapped.streams) == (reader.shards, 1)  # type: ignore[union-attr]
    sample = next(wrapped.raw(shards[0], Skips()))  # type: ignore[union-attr]
    with pytest.raises(UnusableError, match=REASON):
        wrapped.decode(sample)  # type: ignore[union-attr]


def test_bad_settings(drawings: list[PilImage.Image]) -> None:
    store = stored(drawings[:1])
    for make, message in (
        (lambda: deduplicated(Numbered(drawings[:2]), store, -1), r"distance is -1"),
        (
            lambda: deduplicated(Numbered(drawings[:2]), PictureHashes([], store.hashes[:0])),
            r"against holds 0 pictures",
        ),
        (lambda: deduplicated(object(), store), r"deduplicated.reader is a object"),
        (lambda: picture_hashes([]), r"against.paths is empty"),
        (lambda: PictureHashes(["a"], store.hashes[0]), r"1 keys need uint64 of \(1, 6\)"),
        (lambda: PictureHashes([], store.hashes[:0]).nearest(store.hashes), r"there is none"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    skips = Skips()
    broken = PilImage.open(io.BytesIO(encoded_bytes(drawings[0])[:200]))
    found = PictureHashes.of([Document([Text("a")]), Document([Image(broken)], {"key": "b"})], skips)
    assert len(found) == 0
    assert skips.counts == {"broken image": 1}


def encoded_bytes(image: PilImage.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_the_command(tmp_path: Path, drawings: list[PilImage.Image], capsys: pytest.CaptureFixture[str]) -> None:
    for folder, start in (("evaluation", 0), ("training", 2)):
        (tmp_path / folder).mkdir()
        for number in range(start, start + 4):
            drawings[number].save(tmp_path / folder / f"{number}.{'png' if start else 'jpg'}")
    hashes = str(tmp_path / "hashes.npz")
    assert cli.main(["dedupe", str(tmp_path / "evaluation"), f"out={hashes}"]) == 0
    assert cli.main(["dedupe", str(tmp_path / "training"), f"against={hashes}", "distance=20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split("\t")[1:] for line in lines if "\t" in line) == [["2.png", "2.jpg"], ["3.png", "3.jpg"]]
    assert lines[-1] == "2 of 4 pictures are within 20 bits of one of 4"
    for words, message in (
        ([], "needs a folder"),
        ([str(tmp_path)], "give out=FILE.npz"),
        ([str(tmp_path), "out=a.npz", "distance=near"], "distance=near"),
    ):
        assert cli.main(["dedupe", *words]) == 1
        assert message in capsys.readouterr().err


def test_the_declared_reader() -> None:
    chosen = ["reader@data.train=deduplicated", "reader@data.train.reader=webdataset_pairs"]
    train = compose(None, ["+model=clip_tiny", "+data=clip_views", "+seed=0", *chosen]).data.train
    assert (train.type, train.reader.type, train.distance) == ("deduplicated", "webdataset_pairs", NEAR)
