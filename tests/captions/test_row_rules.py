"""Rules of rows: every record becomes a row; what cannot be fused says why; keys as the data's own rules say."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multimodal_zoo.captions.columns import Columns, as_columns, recognise
from multimodal_zoo.captions.row_rules import RowRules

COLUMNS = Columns("raw", ("synthetic",), "url", None, None, ())


def picture(side: int = 64) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(stored, "jpeg")
    return stored.getvalue()


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def row(rules: RowRules | None = None, columns: Columns = COLUMNS, **values: Any) -> Any:
    return (rules or RowRules()).row(values, columns, "a.jsonl:7")


def test_keys_are_made_of_the_address_of_both_captions_or_of_the_place() -> None:
    assert row(raw="a", synthetic="b", url="https://e.org/1.jpg").key == sha("https://e.org/1.jpg")
    assert row(raw="a", synthetic="b").key == sha("a\x1fb")
    assert row(raw="a", synthetic=["b", "c"]).key == sha("a\x1fb")
    assert row().key == row(raw=None, synthetic=[]).key == sha("a.jsonl:7")
    own = Columns("raw", ("synthetic",), "url", "id", None, ())
    assert row(columns=own, raw="a", synthetic="b", url="u", id="k1").key == "k1"
    assert RowRules().row({"raw": "a"}, COLUMNS, "t.tar/0", "t.tar/0").key == sha("t.tar/0")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"raw": "a"}, "no synthetic caption"),
        ({"synthetic": "b"}, "no raw caption"),
        ({}, "no raw caption and no synthetic caption"),
        ({"raw": " \n", "synthetic": "b"}, "no raw caption"),
        ({"raw": float("nan"), "synthetic": "b"}, "no raw caption"),
        ({"raw": 12, "synthetic": "b"}, "raw is int 12, not text"),
        ({"raw": b"caf\xe9", "synthetic": "b"}, "raw is not UTF-8: unexpected end of data at byte 3"),
        ({"raw": "a\ud83d", "synthetic": "b"}, "raw has half a character (a lone surrogate)"),
        ({"raw": "a\x00b", "synthetic": "b"}, "raw has the control character '\\x00' at 1"),
        ({"raw": "a" * 10_001, "synthetic": "b"}, "raw has 10001 characters; source.rules.longest is 10000"),
        ({"raw": "a", "synthetic": ["b", "c" * 10_001]}, "synthetic has 10001 characters"),
        ({"raw": "a", "synthetic": ["b", 3]}, "synthetic is int 3, not text"),
    ],
)
def test_a_row_that_cannot_be_fused_says_why(values: dict[str, Any], problem: str) -> None:
    found = row(**values)
    assert found.problem.startswith(problem)
    found.raw.encode()  # whatever came in can be written


@pytest.mark.parametrize("text", ["tab\there", "two\nlines", "Ünïcödé 中文", "\U0001f600 smile", "&amp; <b>", "{raw}"])
def test_usual_web_texts_are_no_problem_and_stay_as_they_are(text: str) -> None:
    found = row(raw=text, synthetic=text)
    assert (found.raw, found.synthetic, found.problem) == (text, (text,), None)
    assert row(raw=text.encode(), synthetic=[text]).raw == text


def test_surrogate_pairs_are_joined_and_damage_can_be_repaired() -> None:
    assert row(raw="a\ud83d\ude00", synthetic="b").raw == "a\U0001f600"
    rules = RowRules(damaged="repair")
    assert row(rules, raw=b"caf\xe9 x", synthetic="b\x07c").raw == "caf\ufffd x"
    assert row(rules, raw=b"caf\xe9 x", synthetic="b\x07c").synthetic == ("b c",)
    assert row(rules, raw=b"caf\xe9 x", synthetic="b\x07c").problem is None


def test_what_is_required_can_be_less_or_more() -> None:
    assert row(RowRules(required=["raw"]), raw="a").problem is None
    assert row(RowRules(required=[]), url="u").problem is None
    columns = Columns("raw", (), None, None, "image", ())
    assert row(RowRules(required=["raw", "image"]), columns, raw="a").problem == "no picture"


def test_pictures_are_looked_at_as_far_as_asked() -> None:
    columns = Columns("raw", (), None, None, "image", ())
    whole = picture()
    cut = whole[: len(whole) // 2]
    for how, good in (("carry", True), ("check", True), ("decode", False)):
        rules = RowRules(required=["raw"], pictures=how)
        found = row(rules, columns, raw="a", image={"bytes": cut, "path": None})
        assert found.image == cut
        assert (found.problem is None) == good, how
        assert row(rules, columns, raw="a", image=whole).problem is None
    assert "not bytes" in row(RowRules(required=[]), columns, image="a.jpg").problem
    assert row(RowRules(required=[]), columns, image=b"no picture").problem
    assert row(RowRules(required=[]), columns, image=None).problem is None


def test_other_columns_are_carried_along_under_one_spelling() -> None:
    columns = Columns("raw", ("synthetic",), "url")
    found = row(columns=columns, raw="a", synthetic="b", url="u", capsfuion_official="c", width=3)
    assert found.extra == {"url": "u", "capsfusion_official": "c", "width": 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"longest": 0}, "source.rules.longest is 0"),
        ({"damaged": "drop"}, "source.rules.damaged is 'drop'; it must be one of fail, repair"),
        ({"pictures": "yes"}, "source.rules.pictures is 'yes'"),
        ({"required": "raw"}, "source.rules.required is 'raw'; it must be a list from raw, synthetic, image"),
        ({"required": ["text"]}, "source.rules.required"),
    ],
)
def test_words_that_are_not_known_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RowRules(**settings)


@pytest.mark.parametrize(
    ("found", "raw", "synthetic", "url", "others"),
    [
        (["image_url", "laion_2b", "laion_coco", "capsfusion"], "laion_2b", "laion_coco", "image_url", 2),
        (["laion_2b", "laion_coco", "capsfuion_official"], "laion_2b", "laion_coco", None, 1),
        (["url", "caption", "blip_caption", "width"], "caption", "blip_caption", "url", 2),
        (["URL", "TEXT", "top_caption"], "TEXT", "top_caption", "URL", 1),
        (["key", "raw", "synthetic", "fused", "status"], "raw", "synthetic", None, 2),
    ],
)
def test_published_layouts_are_recognised(found: list[str], raw: str, synthetic: str, url: str, others: int) -> None:
    columns = recognise(Columns(), found, "a.parquet", ("raw", "synthetic"))
    assert (columns.raw, columns.synthetic, columns.url) == (raw, (synthetic,), url)
    assert len(columns.others(found)) == others
    assert columns.key == ("key" if "status" in found else None)


def test_columns_that_are_missing_are_named_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"source.raw: a.parquet has no column 'text'; it has alt, blip"):
        recognise(as_columns(raw="text"), ["alt", "blip"], "a.parquet", ())
    with pytest.raises(ValueError, match=r"source.synthetic: a.parquet has none of the usual columns"):
        recognise(Columns(), ["alt", "blip"], "a.parquet", ("raw", "synthetic"))
    with pytest.raises(ValueError, match=r"source.extra is 'none'"):
        as_columns(extra="none")
    columns = recognise(as_columns(synthetic=["blip", "git"], extra=[]), ["alt", "blip", "git", "w"], "a", ("raw",))
    assert columns.synthetic == ("blip", "git")
    assert columns.others(["alt", "blip", "git", "w"]) == ()
