from __future__ import annotations

import gzip
import json
from importlib.resources import files

import pytest

from multimodal_zoo.data.emoji_table import (
    concept_of,
    load_table,
    names_in,
    normal_key,
    split_of,
)

LANGUAGES = ["en", "es", "ja", "ko", "pt", "it", "fr", "de", "fa", "id", "zh", "ru", "tr", "ar"]


def test_concept_rule_gives_what_the_table_says() -> None:
    rows = json.loads(gzip.decompress(files("multimodal_zoo.data").joinpath("emoji_table.json.gz").read_bytes()))
    assert [concept_of(row["seq"]) for row in rows] == [row["concept"] for row in rows]
    assert [split_of(row["concept"]) for row in rows] == [row["split"] for row in rows]


def test_no_concept_lies_on_two_sides() -> None:
    sides: dict[str, set[str]] = {}
    for row in load_table():
        sides.setdefault(row.concept, set()).add(row.split)
    assert all(len(splits) == 1 for splits in sides.values())


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
