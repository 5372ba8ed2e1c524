"""Words, content words, numbers and names of captions: what filters, reports and the rule-based engine count.

All of captions/ measures with these definitions, so that their figures can stand beside each other and beside the
measurements of the published samples (`report_tables.REFERENCE`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar

_WORD = re.compile(r"\w+")
#: Letters of scripts that set no blanks between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = (
    "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3\u3041-\u3096\u30a1-\u30fa\u30fc-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ANY_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_NUMBER = re.compile(r"\d+")
_CAPITALISED = re.compile(r"\b[A-Z]\w*", re.ASCII)
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
    """All words in order: runs of letters, digits and underscores, in lower case.

    In scripts without blanks between words, Chinese for one, each letter is a word.
    """
    return tuple((_WORD if text.isascii() else _ANY_WORD).findall(text.lower()))


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


T = TypeVar("T")
_NOTHING: frozenset[str] = frozenset()


class _once(Generic[T]):
    """A property that is worked out once for each object; functools' own takes a lock, half of the time of a row."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self.make, self.name = make, make.__name__
        self.__doc__ = make.__doc__

    def __get__(self, instance: Any, owner: type) -> T:
        value = instance.__dict__[self.name] = self.make(instance)
        return value


class Reading:
    """What one text holds, each part counted once; what is not asked for of every text, when it is first asked for.

    Args:
        text: a caption.

    Attributes:
        text: the caption.
        words: all words in order, in lower case.
        vocabulary: the distinct words.
        content: the distinct content words.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = words(text)
        self.vocabulary = frozenset(self.words)
        self.content = self.vocabulary - STOP_WORDS

    @_once
    def line(self) -> str:
        """The words with a blank before and after each, so that a run of words can be looked up in another line."""
        return f" {' '.join(self.words)} " if self.words else ""

    @_once
    def numbers(self) -> frozenset[str]:
        """The distinct numbers."""
        mixed = [word for word in self.words if not word.isalpha()]  # numbers are in none of the others
        return frozenset(_NUMBER.findall(" ".join(mixed))) if mixed else _NOTHING

    @_once
    def names(self) -> frozenset[str]:
        """The distinct capitalised words, in lower case so that they can be looked up in a `vocabulary`."""
        if self.text.isascii():  # the same, at half the price
            return frozenset(" ".join(_CAPITALISED.findall(self.text)).lower().split()) - STOP_WORDS
        return frozenset(word.lower() for word in capitalised(self.text))

    @_once
    def closed(self) -> bool:
        """Whether it ends like a sentence: a closing point or mark, with quotes and brackets behind it at most."""
        return self.text.rstrip().rstrip(_BEHIND).endswith(_CLOSING)


@lru_cache(maxsize=64)
def reading(text: str) -> Reading:
    """The `Reading` of a text, shared by all that look at the same row."""
    return Reading(text)


class Runs:
    """The runs of neighbouring words of an instruction, to find those that leak into answers.

    Args:
        text: the instruction, empty for none.
        size: words of a run; three give the leak rate that was measured on the published samples (4.0 %).
    """

    def __init__(self, text: str, size: int = 3) -> None:
        if size < 1:
            raise ValueError(f"a run of {size} words does not exist; size must be at least 1")
        self.size = size
        self.runs = frozenset(ngrams(words(text), size))
        # one telling word of each run: most answers hold none of them, and need no closer look
        self.signs = frozenset(max(run, key=lambda word: (word not in STOP_WORDS, len(word))) for run in self.runs)

    def __bool__(self) -> bool:
        """Whether there is anything to find."""
        return bool(self.runs)

    def leaked(self, raw: Reading, synthetic: Iterable[Reading], fused: Reading) -> frozenset[tuple[str, ...]]:
        """The runs in a fused caption that are in none of its sources."""
        if self.signs.isdisjoint(fused.vocabulary):
            return frozenset()
        found = self.runs.intersection(ngrams(fused.words, self.size))
        for source in (raw, *synthetic) if found else ():
            found = found.difference(ngrams(source.words, self.size))
        return found
