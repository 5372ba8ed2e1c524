from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from multimodal_zoo.data.emoji_table import (
    ALIASES,
    concept_of,
    load_table,
    names_in,
    normal_key,
    split_of,
    vocabulary_of,
)

CASE = json.loads((Path(__file__).parents[1] / "goldens/embedded_data/emoji_pairs/case.json").read_text())
LANGUAGES = ["en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar"]


def digest(values: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(values)).encode()).hexdigest()


def test_concept_rule_gives_what_the_table_says() -> None:
    rows = json.loads(gzip.decompress(files("multimodal_zoo.data").joinpath("emoji_table.json.gz").read_bytes()))
    assert [concept_of(row["seq"]) for row in rows] == [row["concept"] for row in rows]
    assert [split_of(row["concept"]) for row in rows] == [row["split"] for row in rows]


def test_aliases_are_the_published_ones() -> None:
    assert CASE["config"]["concept_aliases"] == ALIASES


def test_counts_and_hashes() -> None:
    table, expected = load_table(), CASE["outputs"]
    base = [row for row in table if not row.toned]
    assert (len(table), len(base)) == (expected["images"], expected["base_images"])
    concepts = Counter(row.concept for row in table)
    assert len(concepts) == expected["concepts"] == len(vocabulary_of("concept"))
    assert sum(n == 1 for n in concepts.values()) == expected["single_image_concepts"]
    assert len(vocabulary_of("group")) == expected["groups"]
    assert len(vocabulary_of("subgroup")) == expected["subgroups"]
    assert digest({row.sequence for row in table}) == expected["all_keys_sha256"]
    assert digest({row.sequence for row in base}) == expected["base_keys_sha256"]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_splits(split: str) -> None:
    rows, expected = [row for row in load_table() if row.split == split], CASE["outputs"]["splits"][split]
    base = [row for row in rows if not row.toned]
    assert (len(rows), len(base)) == (expected["images"], expected["base_images"])
    assert Counter(row.group for row in base) == expected["groups"]
    assert digest({row.concept for row in rows}) == expected["sha256_concepts"]
    assert digest({row.sequence for row in rows}) == expected["sha256_keys"]


def test_no_concept_lies_on_two_sides() -> None:
    sides: dict[str, set[str]] = {}
    for row in load_table():
        sides.setdefault(row.concept, set()).add(row.split)
    assert all(len(splits) == 1 for splits in sides.values())


def test_samples_of_the_golden_case() -> None:
    rows = {row.sequence: row for row in load_table()}
    for sample in CASE["samples"]:
        row = rows[sample["seq"]]
        assert (row.name, row.group, row.subgroup) == (sample["name"], sample["group"], sample["subgroup"])
        assert (row.concept, row.split, list(row.keywords)) == (sample["concept"], sample["split"], sample["tags"])


def test_key_rule() -> None:
    assert normal_key("0031-FE0F-20E3") == "31-20e3"
    assert normal_key("00A9") == "a9"


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_in_fourteen_languages(language: str) -> None:
    names = names_in(language)
    assert len(names) == 3944
    assert all(name and ":" not in (name[0], name[-1]) and "_" not in name for name in names.values())


def test_language_that_does_not_exist() -> None:
    assert names_in("de")["1f42c"] == "delfin"
    with pytest.raises(ValueError, match=r"data.language is 'xx'.*de"):
        names_in("xx")
