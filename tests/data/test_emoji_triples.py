"""Triples of captions about emoji."""

from __future__ import annotations

import json
import re
import tarfile

import numpy as np
import pytest

from multimodal_zoo.cli import main
from multimodal_zoo.data.emoji_classes import COLOURS, NOUNS, colours_of, listed
from multimodal_zoo.data.emoji_fusing import noun_phrase, plain_name
from multimodal_zoo.data.emoji_table import Emoji, load_table, vocabulary_of
from multimodal_zoo.data.emoji_triples import (
    KEYWORDS,
    Triple,
    class_sentence,
    fused_target,
    raw_caption,
    specific_names,
    told_keywords,
    triples,
)


@pytest.fixture(scope="module")
def made() -> list[Triple]:
    return triples(["train", "val", "test"], "twemoji", seed=3)


def row_of(name: str) -> Emoji:
    return next(row for row in load_table() if row.name == name)


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def test_every_subgroup_has_a_noun_and_no_other_has() -> None:
    assert tuple(sorted(NOUNS)) == vocabulary_of("subgroup")


def test_splits_share_no_concept_and_make_the_whole(made) -> None:
    parts = {split: triples(split, seed=3) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 1554, "val": 175, "test": 185}
    concepts = [{one.row.concept for one in part} for part in parts.values()]
    assert not concepts[0] & concepts[1]
    assert not concepts[0] & concepts[2]
    assert not concepts[1] & concepts[2]
    assert {one.key: one for part in parts.values() for one in part} == {one.key: one for one in made}


def test_the_fused_sentence_keeps_names_and_keywords_and_has_no_noise(made) -> None:
    for one in made:
        said = words_of(one.fused)
        assert set(specific_names(one.row)) <= said, one
        assert set(specific_names(one.row)) <= words_of(one.raw.replace("_", " ")), one
        told = told_keywords(one.row, "3/twemoji")
        assert len(told) <= KEYWORDS
        assert all(word.lower() in one.fused.lower() for word in told), one
        assert all(word.lower() in one.raw.lower() for word in told), one
        assert not said & {"stock", "download", "shutterstock", "jpg", "wallpaper", "pinterest"}, one
        assert one.fused.endswith(".")
        assert one.fused[0] == one.fused[0].upper()
        assert "  " not in one.fused


def test_fused_numbers_and_colours_come_from_the_sources(made) -> None:
    for one in made:
        sources = words_of(f"{one.raw} {one.synthetic} {plain_name(one.row)}".replace("_", " "))
        assert set(re.findall(r"\b\d+\b", one.fused)) <= sources, one
        assert words_of(one.fused) & {"red", "green", "purple", "pink"} <= sources, one


def test_generic_sentences_name_nothing(made) -> None:
    colours = {word for colour in COLOURS for word in colour.split()} | {"white", "two"}
    told = [one for one in made if (set(specific_names(one.row)) - colours) & words_of(one.synthetic)]
    assert not told
    assert len({one.synthetic for one in made}) > 500


def test_another_seed_or_style_gives_other_captions(made) -> None:
    again = triples(["train", "val", "test"], "twemoji", seed=3)
    assert again == made
    other = triples(["train", "val", "test"], "twemoji", seed=4)
    drawn = triples(["train", "val", "test"], "openmoji", seed=3)
    for changed in (other, drawn):
        assert sum(a.raw != b.raw for a, b in zip(made, changed, strict=True)) > 0.95 * len(made)
    assert drawn[0].key == "openmoji/" + made[0].row.sequence


def test_written_captions_are_taken_and_corrected() -> None:
    keys = {one.key: "A cartoon of a hat in light blue and red on a white background." for one in triples("val")}
    fused = triples("val", synthetic=keys)[0]
    assert fused.synthetic == keys[fused.key]
    assert "cartoon" in fused.fused.lower()
    assert "light blue and red" in fused.fused.lower()
    assert "hat" not in words_of(fused.fused)
    assert "white" not in words_of(fused.fused)
    del keys[fused.key]
    with pytest.raises(ValueError, match=f"no caption for 1 of 175 keys, first '{fused.key}'"):
        triples("val", synthetic=keys)


@pytest.mark.parametrize(
    ("name", "phrase", "specific"),
    [
        ("flag: Poland", "the flag of Poland", ("poland",)),
        ("chipmunk", "a chipmunk", ("chipmunk",)),
        ("ATM sign", "an ATM sign", ("atm",)),
        ("nine o\u2019clock", "a clock that shows nine o'clock", ("nine", "o", "clock")),
        ("man: red hair", "a man with red hair", ("red", "hair")),
        ("man: bald", "a bald man", ("bald",)),
        ("grapes", "grapes", ("grapes",)),
        ("Statue of Liberty", "Statue of Liberty", ("statue", "liberty")),
        ("1st place medal", "1st place medal", ("1st", "place", "medal")),
        ("cat with tears of joy", "a cat with tears of joy", ("cat", "tears", "joy")),
    ],
)
def test_names(name: str, phrase: str, specific: tuple[str, ...]) -> None:
    assert noun_phrase(row_of(name)) == phrase
    assert specific_names(row_of(name)) == specific


def test_single_captions() -> None:
    row = row_of("flag: Poland")
    assert "Poland" in fused_target(row)
    assert "poland" in raw_caption(row).lower()
    assert class_sentence(row, 1, ("red", "white")) != class_sentence(row, 1)
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed([]) == ""


def test_colours() -> None:
    picture = np.zeros((1, 4, 8, 8), np.uint8)
    assert colours_of(picture) == [()]  # nothing to see
    picture[0, 3] = 255
    picture[0, 0, :6] = 220  # six rows of red on two of black
    assert colours_of(picture, step=1) == [("red", "black")]
    assert colours_of(picture, step=1, share=0.5) == [("red",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"split": "dev"}, "split is 'dev'"), ({"style": "noto"}, "'noto'; it must be one of twemoji")],
)
def test_unknown_words_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        triples(**options)


def test_the_command_writes_shards(tmp_path, capsys) -> None:
    folder = str(tmp_path / "set")
    assert main(["data", "emoji-captions", folder, "rows=7", "seed=3", "split=test", "style=openmoji"]) == 0
    assert "7 pictures with raw and synthetic captions in 1 shards" in capsys.readouterr().out
    wanted = {one.key: one for one in triples("test", "openmoji", 3)}
    with tarfile.open(tmp_path / "set" / "00000.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    assert len(files) == 21
    for name, content in files.items():
        if name.endswith(".json"):
            facts = json.loads(content)
            one = wanted[facts["key"]]
            assert (facts["caption"], facts["synthetic"], facts["fused_target"]) == (one.raw, one.synthetic, one.fused)
            assert files[name.replace(".json", ".txt")].decode() == one.raw
            assert tuple(facts["names"]) == specific_names(one.row)
            assert facts["split"] == "test"
            assert files[name.replace(".json", ".jpg")][:2] == b"\xff\xd8"
    assert main(["data", "emoji-captions", folder]) == 1
    assert "holds something already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "needs one folder, and got 0"),
        (["x", "style=noto"], "style is 'noto'"),
        (["x", "split=dev"], "split is 'dev'"),
        (["x", "rows=0"], "rows is 0"),
        (["x", "rows=few"], "rows=few: expected a whole number"),
        (["x", "frames=1"], "no option 'frames'; there are rows, seed, style, split"),
    ],
)
def test_bad_words_get_a_readable_error(words, expected, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "emoji-captions", *words]) == 1
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
