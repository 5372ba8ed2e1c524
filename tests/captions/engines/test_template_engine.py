"""Fusion by rules."""

from __future__ import annotations

import random

import pytest

from multimodal_zoo.captions.engine import Request
from multimodal_zoo.captions.engines.template_engine import fuse
from multimodal_zoo.captions.words import capitalised, numbers, words
from multimodal_zoo.registry import build


@pytest.mark.parametrize(
    ("raw", "synthetic", "expected"),
    [
        ("Lisbon tram 28, Alfama - stock photo 4412", "A yellow tram.", "A yellow tram: Lisbon, 28, Alfama, 4412."),
        ("Grand Place in Brussels", "people at night", "People at night: Grand Place, Brussels."),
        ("O'Hara & Sons No.7, 3.50 EUR; Rock-n-Roll", "a shop", "A shop: O'Hara & Sons No.7, 3.50 EUR, Rock-n-Roll."),
        ("New York, New Jersey, new york", "A map of two states .", "A map of two states: New York, New Jersey."),
        ("The Tram", "A tram!", "A tram."),
        (
            "\u6771\u4eac\u30bf\u30ef\u30fc \u591c\u666f",
            "A tower.",
            "A tower: \u6771\u4eac\u30bf\u30ef\u30fc \u591c\u666f.",
        ),
        ("  lone raw caption, ", "", "Lone raw caption."),
        ("", " a  dog\n runs", "A dog runs."),
        ("Rex 7", "...", "Rex 7."),
        ("", "", ""),
    ],
)
def test_a_sentence_with_the_facts_behind_it(raw: str, synthetic: str, expected: str) -> None:
    assert fuse(raw, [synthetic]) == expected


def test_no_name_and_no_number_is_lost_or_invented() -> None:
    generator = random.Random(1)
    stock = [
        "Paris",
        "the",
        "dog",
        "IMG4412.jpg",
        "1,000",
        "3.50",
        "Eiffel",
        "&",
        "A4",
        "NASA's",
        "-",
        "in",
        "2019",
        "x",
    ]
    for _ in range(300):
        raw = " ".join(generator.choices(stock, k=generator.randrange(12)))
        synthetic = " ".join(generator.choices(stock, k=generator.randrange(1, 8)))
        found = fuse(raw, [synthetic])
        both = set(words(found))
        assert set(numbers(raw)) <= set(numbers(found)) <= set(numbers(raw + " " + synthetic))
        assert {name.lower() for name in capitalised(raw)} <= both <= set(words(raw + " " + synthetic))
        assert not found or (found[0] == found[0].upper() and found[-1] in ".!?")


def test_the_engine_answers_every_request() -> None:
    engine = build({"type": "template_engine", "most_words": 2})
    requests = [Request("p", "Anna Berg Oslo", ("a woman",)), Request("p", "", ())]
    first, second = engine.answer(requests)
    assert (first.text, first.tokens, first.error) == ("A woman: Anna Berg.", 4, None)
    assert second.error == "no caption to fuse"
    assert engine.answer(requests) == [first, second]
    assert engine.describe() == {"engine": "template_engine", "most_words": 2}
    assert engine.count(["a b"]) == [2]
    assert engine.cut("a b", 1) == "a"
    with pytest.raises(ValueError, match=r"fusion_engine\.most_words is 0"):
        build({"type": "template_engine", "most_words": 0})
