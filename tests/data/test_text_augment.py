"""EDA's three operations and their synonyms: what each may do, how often, and the same in every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from multimodal_zoo.data.synonyms import TableSynonyms, WordnetSynonyms
from multimodal_zoo.data.text_augment import STOP_WORDS, Eda, RandomDeletion, RandomSwap, SynonymReplacement

SENTENCE = "two brown dogs are running across the snowy beach near a red boat"
TABLE = TableSynonyms({"dogs": ["hound", "hot dog", "hound"], "red": ["ruby", ""], "the": ["article"]})


def test_deletion() -> None:
    words, random = SENTENCE.split(), Random(0)
    kept = [RandomDeletion(0.1)(words, random) for _ in range(3000)]
    assert all([word for word in words if word in row] == row for row in kept)  # the words are distinct
    assert abs(sum(map(len, kept)) / (3000 * len(words)) - 0.9) < 0.01
    assert {tuple(RandomDeletion(1)(words, random)) for _ in range(500)} == {(word,) for word in words}
    assert RandomDeletion(1)(["sunset"], random) == ["sunset"]


def test_swap() -> None:
    words, random = SENTENCE.split(), Random(0)
    for _ in range(500):
        swapped = RandomSwap()(words, random)
        moved = [place for place, (a, b) in enumerate(zip(words, swapped, strict=True)) if a != b]
        assert len(moved) in (0, 2)
        assert sorted(swapped) == sorted(words)
    assert words == SENTENCE.split()
    assert RandomSwap()(["sunset"], random) == ["sunset"]
    share = sum(RandomSwap()(["a", "b"], random) == ["b", "a"] for _ in range(4000)) / 4000
    assert abs(share - 7 / 8) < 0.02  # three draws of the second place


def test_synonyms_of_a_table() -> None:
    words, random = SENTENCE.split(), Random(0)
    found = {" ".join(SynonymReplacement(TABLE)(words, random)) for _ in range(200)}
    assert found == {
        *(SENTENCE.replace("dogs", word) for word in ("hound", "hot dog")),
        *(SENTENCE.replace("red", word) for word in ("ruby", "")),
    }
    assert SynonymReplacement(TABLE)(["the", "The", "cat"], random) == ["the", "The", "cat"]
    assert SynonymReplacement(TABLE, stop_words=())(["the", "The"], random) == ["article", "The"]
    both = SynonymReplacement(TABLE, count=2)(["red", "dogs", "red"], Random(1))
    assert both[0] == both[2] != "red"
    assert both[1] in ("hound", "hot dog")
    assert {"the", "of", "and", "now"} <= STOP_WORDS


def test_eda_takes_one_operation_at_random() -> None:
    eda = Eda([lambda words, random: ["one"], lambda words, random: ["two"]])
    random = Random(0)
    drawn = [eda("some  words", random) for _ in range(2000)]
    assert abs(drawn.count("one") / 2000 - 0.5) < 0.04
    assert set(drawn) == {"one", "two"}
    assert Eda([RandomDeletion(0)])(" a\tb ", random) == "a b"
    for blank in ("", " \n"):
        assert eda(blank, random) == blank
    assert Eda([SynonymReplacement(TableSynonyms({"b": [""]}))])("b", random) == ""  # a view shows the caption then


def test_hash_seeds_change_nothing() -> None:
    code = (
        "from random import Random; from multimodal_zoo.data.synonyms import TableSynonyms; "
        "from multimodal_zoo.data.text_augment import *; r = Random(0); "
        "s = TableSynonyms({w: [w + c for c in 'abcdef'] for w in 'one two three four'.split()}); "
        "print([Eda([SynonymReplacement(s), RandomSwap()])('one two three four', r) for _ in range(20)])"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, stdout=subprocess.PIPE)
        for seed in ("1", "2")
    ]
    first, second = (run.communicate()[0] for run in runs)
    assert first == second != b""


def test_bad_settings() -> None:
    for make, message in (
        (lambda: Eda([]), r"eda.operations is empty"),
        (lambda: RandomSwap(0), r"random_swap.count is 0"),
        (lambda: SynonymReplacement(TABLE, 0), r"synonym_replacement.count is 0"),
        (lambda: RandomDeletion(1.1), r"random_deletion.probability is 1.1"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


#: A dictionary of three meanings in WordNet's format: data lines, index lines, irregular forms.
MEANINGS = {
    "noun": [
        "05 n 03 dog 0 Domestic_dog 0 canis-familiaris 0 000 | barks",
        "05 n 02 goose 0 fat_head(p) 0 000 | honks",
    ],
    "verb": ["30 v 02 chase 0 dog 0 000 | runs after"],
    "adj": ["00 a 02 big 0 large 1 000 | not small"],
    "adv": [],
}
EXCEPTIONS = {"noun": "geese goose\n"}


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    for part, meanings in MEANINGS.items():
        data, places = "  1 This line is what a licence looks like in these files.  \n", {}
        for meaning in meanings:
            place = len(data)
            data += f"{place:08d} {meaning}  \n"
            fields = meaning.split()
            for name in fields[3 : 3 + 2 * int(fields[2], 16) : 2]:
                places.setdefault(name.split("(")[0].lower(), []).append(place)
        index = "  1 This line too.  \n" + "".join(
            f"{name} {part[0]} {len(at)} 0 {len(at)} 0 {' '.join(f'{p:08d}' for p in at)}  \n"
            for name, at in sorted(places.items())
        )
        (tmp_path / f"data.{part}").write_text(data)
        (tmp_path / f"index.{part}").write_text(index)
        (tmp_path / f"{part}.exc").write_text(EXCEPTIONS.get(part, ""))
    return tmp_path


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dog", ["canis familiaris", "chase", "domestic dog"]),
        ("dogs", ["canis familiaris", "chase", "dog", "domestic dog"]),
        ("Dog", ["canis familiaris", "chase", "dog", "domestic dog"]),
        ("chasing", ["chase", "dog"]),
        ("geese", ["fat head", "goose"]),
        ("biger", ["big", "large"]),
        ("large", ["big"]),
        ("xyzzy", []),
        ("dog,", []),
        ("zz", []),
        ("é", []),
    ],
)
def test_wordnet_files(wordnet: Path, word: str, expected: list[str]) -> None:
    synonyms = WordnetSynonyms(str(wordnet))
    assert synonyms(word) == expected
    assert synonyms(word) is synonyms(word)


def test_a_folder_without_wordnet(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"wordnet_synonyms.folder.*index.noun.*apt install wordnet-base"):
        WordnetSynonyms(str(tmp_path))
