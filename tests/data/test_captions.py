from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from multimodal_zoo.data.captions import (
    AliasCaption,
    AnyCaption,
    CaptionMixture,
    KeywordsCaption,
    TemplateCaption,
    TextAndKeywords,
    TextCaption,
)
from multimodal_zoo.data.documents import Document, Text, Video, pair
from multimodal_zoo.data.randomness import derive, python_random, torch_random

PIXEL = np.zeros((1, 1, 3), np.uint8)
FULL = pair(PIXEL, "dolphin", {"keywords": ("animal", "beach", "sea"), "aliases": ["flipper"], "group": "nature"})
BARE = pair(PIXEL, "alembic", {"key": "bare"})


def test_single_samplers() -> None:
    assert TextCaption()(FULL, Random(0)) == "dolphin"
    assert AliasCaption()(FULL, Random(0)) == "flipper"
    assert AliasCaption()(BARE, Random(0)) == "alembic"
    no_alias = pair(PIXEL, "x", {"keywords": ("only",)})
    assert AliasCaption(otherwise=KeywordsCaption(1, 1))(no_alias, Random(0)) == "only"
    assert KeywordsCaption(4, 4)(BARE, Random(0)) == "alembic"
    assert sorted(KeywordsCaption(4, 4)(FULL, Random(0)).split()) == ["animal", "beach", "sea"]
    assert TextAndKeywords(1, 2)(BARE, Random(0)) == "alembic"
    assert TemplateCaption(["a picture from {group}"])(FULL, Random(0)) == "a picture from nature"
    assert TemplateCaption(["{group}: {text}"], KeywordsCaption(3, 3))(FULL, Random(0)).startswith("nature: ")
    assert AnyCaption()(BARE, Random(0)) == "alembic"
    several = pair(PIXEL, "a", {"texts": ["a", "b"]})
    assert {AnyCaption()(several, Random(seed)) for seed in range(20)} == {"a", "b"}


def test_numbers_of_keywords() -> None:
    texts = [TextAndKeywords(1, 2, joiner=", ")(FULL, Random(seed)) for seed in range(300)]
    assert {text.count(",") for text in texts} == {1, 2}
    assert all(text.startswith("dolphin, ") for text in texts)
    assert len(set(texts)) == 3 + 6


def test_mixture_follows_its_weights() -> None:
    mixture = CaptionMixture([TextCaption(), AliasCaption()], [3, 1])
    counts = Counter(mixture(FULL, Random(seed)) for seed in range(2000))
    assert 0.71 < counts["dolphin"] / 2000 < 0.79
    with pytest.raises(ValueError, match=r"data.captions has 1 parts and weights \[1, 2\]"):
        CaptionMixture([TextCaption()], [1, 2])


def test_template_with_an_unknown_fact() -> None:
    with pytest.raises(ValueError, match=r"'from \{place\}' needs 'place'; documents have text, key"):
        TemplateCaption(["from {place}"])(BARE, Random(0))


def test_documents() -> None:
    document = Document([Text("only text"), Video([PIXEL], 2.0)], {"key": "k"})
    assert document.text == "only text"
    with pytest.raises(ValueError, match=r"document 'k' has no image"):
        _ = document.image
    with pytest.raises(ValueError, match=r"has no text"):
        _ = Document([]).text


def test_random_numbers_depend_on_every_number() -> None:
    assert derive(1, 2) == derive(1, 2) != derive(2, 1)
    assert len({derive(a, b) for a in range(30) for b in range(30)}) == 900
    assert 0 <= derive(-1) < 2**63
    assert python_random(5).random() == python_random(5).random()
    assert torch_random(5).initial_seed() == torch_random(5).initial_seed()


def test_facts_from_outside_may_be_anything() -> None:
    strange = pair(PIXEL, "own", {"texts": "one text", "aliases": [None, 3], "keywords": 7})
    assert AnyCaption()(strange, Random(0)) == "one text"
    assert AliasCaption()(strange, Random(0)) == "own"
    assert KeywordsCaption(1, 2)(strange, Random(0)) == "own"
    assert AnyCaption()(pair(PIXEL, "own", {"texts": [None, " "]}), Random(0)) == "own"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: KeywordsCaption(3, 1), r"fewest is 3 and most 1; expected 0 <= fewest <= most"),
        (lambda: TextAndKeywords(-1, 1), r"fewest is -1 and most 1"),
        (lambda: TemplateCaption([]), r"data\.captions\.templates is empty"),
        (lambda: CaptionMixture([], []), r"data\.captions has 0 parts"),
        (lambda: TemplateCaption(["{text"])(BARE, Random(0)), r"'\{text' needs expected '\}'"),
    ],
)
def test_what_no_sampler_can_be_made_of(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
