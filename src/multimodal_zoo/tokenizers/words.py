"""What a processor of conversations asks of a text tokenizer, and what tokenizers of that kind share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol


class WordIds(NamedTuple):
    """The ids that frame texts.

    Attributes:
        bos: begins a sequence; None where sequences have no begin.
        eos: ends an answer.
        pad: what collation fills with.
    """

    bos: int | None
    eos: int
    pad: int


class WordTokenizer(Protocol):
    """A tokenizer of plain text with some special tokens. It puts nothing before or behind a text."""

    @property
    def bos_id(self) -> int | None:
        """What begins a sequence, or None."""
        ...

    @property
    def eos_id(self) -> int | None:
        """What ends an answer."""
        ...

    @property
    def pad_id(self) -> int:
        """What collation fills with."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    @property
    def special_ids(self) -> Mapping[str, int]:
        """String -> id of every special token."""
        ...

    def special_id(self, word: str) -> int | None:
        """The id that a string stands for if it is a special token's, else None."""
        ...

    def encode(self, texts: Iterable[str], special: bool = True) -> list[list[int]]:
        """Ragged rows of ids; without `special`, strings of special tokens are ordinary text."""
        ...

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of some ids."""
        ...


def listed(texts: Iterable[str]) -> list[str]:
    """Texts as a list.

    Raises:
        TypeError: one string in place of several.
    """
    if isinstance(texts, str):
        raise TypeError(f"texts: expected a list of strings, got one: write [{texts[:40]!r}]")
    return list(texts)


def framed(start: int, words: Sequence[int], end: int, context_length: int) -> list[int]:
    """A text between its start and end id, cut to the context; the end id stays."""
    return [start, *words[: context_length - 2], end]


def split_special(text: str, special: Mapping[str, int]) -> list[str | int]:
    """A text cut at the strings of special tokens, which become their ids; empty strings are left out.

    Args:
        text: any.
        special: string -> id. Of strings that begin alike the longest is taken.
    """
    if not special:
        return [text] if text else []
    words = sorted(special, key=len, reverse=True)
    pieces = re.split("(" + "|".join(map(re.escape, words)) + ")", text)
    return [special.get(piece, piece) for piece in pieces if piece]


def check_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Ids as a list.

    Raises:
        ValueError: an id outside of the vocabulary.
    """
    row = [int(number) for number in ids]
    if outside := [number for number in row if not 0 <= number < vocab_size]:
        raise ValueError(f"id {outside[0]}: the vocabulary has {vocab_size} ids, 0 to {vocab_size - 1}")
    return row
