"""Masked words and augmented captions: shares, what is never touched, and captions of which nothing is left."""

from __future__ import annotations

from random import Random

import pytest

from multimodal_zoo.data.text_views import IGNORED, AugmentedText, Caption, MaskedText, PlainText, mask_words


class Words:
    """A tokenizer of words of one letter."""

    pad_id, mask_id, start_id, end_id, vocab_size = 0, 97, 98, 99, 100

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[98, *(ord(word) - ord("a") for word in text.split()), 99] for text in texts]


def caption(text: str) -> Caption:
    return Caption(text, Words())


def test_masked_words_have_the_published_shares() -> None:
    random = Random(0)
    row = [98, *range(50), 97, 99]
    selected = masked = kept = 0
    for _ in range(2000):
        ids, labels = mask_words(row, random, 0.15, 97, 100, (97, 98, 99))
        assert labels is not None
        assert len(ids) == len(labels) == len(row)
        assert (ids[0], ids[-2], ids[-1]) == (98, 97, 99)
        assert labels[0] == labels[-2] == labels[-1] == IGNORED
        for old, new, label in zip(row, ids, labels, strict=True):
            assert label in (IGNORED, old)
            assert label == old or new == old
            selected += label == old
            masked += label == old and new == 97
            kept += label == old and new == old
    total = 50 * 2000
    assert abs(selected / total - 0.15) < 0.005
    assert abs(masked / selected - 0.8) < 0.02
    assert abs(kept / selected - 0.1) < 0.02


def test_all_none_and_always_the_same() -> None:
    text = caption("a b c")
    assert MaskedText(0)(text, Random(0)) == ([98, 0, 1, 2, 99], [IGNORED] * 5)
    assert MaskedText(1, hidden=1, replaced=0)(text, Random(0)) == (
        [98, 97, 97, 97, 99],
        [IGNORED, 0, 1, 2, IGNORED],
    )
    assert MaskedText(1, hidden=0, replaced=0)(text, Random(0)).ids == text.ids
    drawn = {i for seed in range(300) for i in MaskedText(1, hidden=0, replaced=1)(text, Random(seed)).ids[1:-1]}
    assert {0, 97, 98, 99} <= drawn <= set(range(100))
    assert MaskedText()(text, Random(5)) == MaskedText()(text, Random(5))
    assert text.ids == [98, 0, 1, 2, 99]
    assert MaskedText()(caption(""), Random(0)) == ([98, 99], [IGNORED] * 2)


def test_plain_and_augmented() -> None:
    text = caption("a b c")
    assert PlainText()(text, Random(0)) == (text.ids, None)
    assert AugmentedText(lambda one, random: one[::-1])(text, Random(0)).ids == [98, 2, 1, 0, 99]
    for nothing in ("", "  "):
        assert AugmentedText(lambda one, random, nothing=nothing: nothing)(text, Random(0)).ids == text.ids  # type: ignore[misc]


@pytest.mark.parametrize("numbers", [(1.5, 0.8, 0.1), (0.1, 0.8, 0.3), (0.1, -0.1, 0.1)])
def test_bad_numbers(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match=r"data.text_views: masked_text has probability"):
        MaskedText(*numbers)
