"""Words, content words, numbers and names of captions: what filters, reports and the rule-based engine count.

All of captions/ measures with these definitions, so that their figures can stand beside each other and beside the
measurements of the published samples (`statistics.REFERENCE`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\d+")
_CLOSING = (".", "!", "?", "\u2026", "\u3002", "\uff01", "\uff1f")
_BEHIND = "\"')]\u201d\u2019\u00bb\u300d"
#: English words that say nothing about a picture; our choice of 34, the number that the reference figures used.
STOP_WORDS = frozenset(
    _WORD.findall(
        "a an the and or but of in on at to from by for with as is are was were be been it its this that these those "
        "there he she his her their"
    )
)


def words(text: str) -> tuple[str, ...]:
    """All words in order: runs of letters, digits and underscores, in lower case."""
    return tuple(_WORD.findall(text.lower()))


def content_words(text: str) -> tuple[str, ...]:
    """The words that are no `STOP_WORDS`, in order, repetitions included."""
    return tuple(word for word in words(text) if word not in STOP_WORDS)


def numbers(text: str) -> tuple[str, ...]:
    """All runs of digits in order, those inside words among them: `The 1990s, No.7, 3.50` has 1990, 7, 3 and 50."""
    return tuple(_NUMBER.findall(text))


def capitalised(text: str) -> tuple[str, ...]:
    """The words that begin with a capital letter as the text writes them, in order, without `STOP_WORDS`."""
    return tuple(word for word in _WORD.findall(text) if word[0].isupper() and word.lower() not in STOP_WORDS)


def trigrams(sequence: Sequence[str]) -> list[tuple[str, ...]]:
    """All runs of three neighbouring words, in order: n - 2 of them, none for fewer than three words."""
    return ngrams(sequence, 3)


def ngrams(sequence: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """All runs of `size` neighbouring words, in order."""
    return list(zip(*(sequence[start:] for start in range(size)), strict=False))


class Reading:
    """What one text holds, each part counted once, when it is first asked for.

    Args:
        text: a caption.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words in order, in lower case."""
        return words(self.text)

    @cached_property
    def line(self) -> str:
        """The words with a blank before and after each, so that a run of words can be looked up in another line."""
        return f" {' '.join(self.words)} " if self.words else ""

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The distinct words."""
        return frozenset(self.words)

    @cached_property
    def content(self) -> frozenset[str]:
        """The distinct content words."""
        return self.vocabulary - STOP_WORDS

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The distinct numbers."""
        return frozenset(numbers(self.text))

    @cached_property
    def names(self) -> frozenset[str]:
        """The distinct capitalised words, in lower case so that they can be looked up in a `vocabulary`."""
        return frozenset(word.lower() for word in capitalised(self.text))

    @cached_property
    def closed(self) -> bool:
        """Whether it ends like a sentence: a closing point or mark, with quotes and brackets behind it at most."""
        return self.text.rstrip().rstrip(_BEHIND).endswith(_CLOSING)

    @cached_property
    def trigrams(self) -> frozenset[tuple[str, ...]]:
        """The distinct runs of three words."""
        return frozenset(trigrams(self.words))


@lru_cache(maxsize=64)
def reading(text: str) -> Reading:
    """The `Reading` of a text, shared by all that look at the same row."""
    return Reading(text)
