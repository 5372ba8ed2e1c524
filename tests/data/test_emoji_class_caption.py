"""Captions that name the kind of an emoji and its colours, and never its name."""

from __future__ import annotations

import re
from random import Random

import pytest

from multimodal_zoo.config import compose
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.emoji_class_caption import EmojiClassCaption
from multimodal_zoo.data.emoji_classes import COLOURS, colours_of, noun_of
from multimodal_zoo.data.emoji_pairs import EmojiPairs
from multimodal_zoo.data.emoji_triples import class_sentence, specific_names


@pytest.fixture(scope="module")
def pairs() -> EmojiPairs:
    return EmojiPairs(["twemoji"], ["val"], 72)


def test_kind_and_colours_and_no_name(pairs: EmojiPairs) -> None:
    say, coloured = EmojiClassCaption(), 0
    for number in range(0, len(pairs), 9):
        row, text = pairs.table[number], say(pairs[number], Random(number))
        words = set(re.findall(r"\w+", text.lower()))
        assert noun_of(row) in text
        assert not words & set(specific_names(row)) - {word for name in COLOURS for word in name.split()}
        coloured += any(name in text for name in COLOURS)
    assert coloured > len(range(0, len(pairs), 9)) // 2


def test_the_same_draw_gives_the_same_words(pairs: EmojiPairs) -> None:
    document = pairs[4]
    say, one = EmojiClassCaption(), EmojiClassCaption(forms=1)
    assert say(document, Random(3)) == say(document, Random(3))
    assert len({say(document, Random(seed)) for seed in range(20)}) > 1
    assert len({one(document, Random(seed)) for seed in range(20)}) == 1
    seen = colours_of(document.image.transpose(2, 0, 1)[None])[0]
    assert one(document, Random(0)) == class_sentence(pairs.table[4], 0, seen)


def test_what_it_cannot_describe(pairs: EmojiPairs) -> None:
    with pytest.raises(ValueError, match=r"data\.captions\.forms is 0"):
        EmojiClassCaption(forms=0)
    with pytest.raises(ValueError, match="'x' is no emoji of emoji_pairs"):
        EmojiClassCaption()(Document([Text("a")], {"key": "x"}), Random(0))


def test_the_captioner_learns_half_of_the_training_concepts() -> None:
    data = compose("capsfusion/captioner", []).data
    assert data.train.share == 0.5
    assert list(data.train.splits) == ["train"]
    assert data.layout.captions.type == "emoji_class_caption"
