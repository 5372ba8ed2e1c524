"""Any tokenizer of words with special tokens behind its own: what a language model gets when it learns to see (Emu)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer
from multimodal_zoo.tokenizers.words import WordTokenizer, check_ids, listed, split_special

#: Strings that differ in a number: `<patch_index_{0000..0256}>`.
SERIES = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", re.DOTALL)


def spelt_out(words: Iterable[str]) -> list[str]:
    """Strings, each series `a{first..last}b` as one string for each number, with leading zeros as `first` has them."""
    found: list[str] = []
    for word in words:
        if series := SERIES.fullmatch(word):
            front, first, last, back = series.groups()
            found += [f"{front}{number:0{len(first)}d}{back}" for number in range(int(first), int(last) + 1)]
        else:
            found.append(word)
    return found


@TOKENIZERS.register_module(name="added_tokens")
class AddedTokens:
    """A tokenizer with further special tokens, whose ids go on behind its own.

    A text is cut at special tokens, old and new, and each piece in between is encoded by itself. With `strip`, white
    space next to a special token is dropped, as the tokenizers of Emu's and Emu2's published code do (transformers'
    slow ones); fast ones keep it, which gives other ids wherever roles are named.

    Args:
        tokenizer: of words.
        added: the strings in the order of their ids; `<patch_index_{0000..0256}>` stands for 257 of them.
        pad: the one that collation fills with; None: the tokenizer's own.
        strip: whether white space next to special tokens is dropped.
        bos: the special token, old or new, that begins a sequence; None: the tokenizer's own, if it has one.

    Raises:
        ValueError: a string that is there twice, or an unknown `pad`.
    """

    def __init__(
        self,
        tokenizer: WordTokenizer,
        added: Sequence[str],
        pad: str | None = None,
        strip: bool = True,
        bos: str | None = None,
    ) -> None:
        self.tokenizer, self.pad, self.strip, self.bos = tokenizer, pad, strip, bos
        self.added = spelt_out(added)
        self._number = {word: place for place, word in enumerate(self.added)}
        if len(self._number) < len(self.added) or "" in self._number:
            raise ValueError(f"tokenizer.added has a string twice, or an empty one: {self.added[:40]}")
        if pad is not None and pad not in self._number:
            raise ValueError(f"tokenizer.pad is {pad!r}, which is none of tokenizer.added")

    @property
    def special_ids(self) -> dict[str, int]:
        """String -> id of every special token."""
        first = self.tokenizer.vocab_size
        return {**self.tokenizer.special_ids, **{word: first + place for word, place in self._number.items()}}

    @property
    def vocab_size(self) -> int:
        """Number of ids: rows of a model's embedding."""
        return self.tokenizer.vocab_size + len(self.added)

    @property
    def bos_id(self) -> int | None:
        """What begins a sequence, or None.

        Raises:
            ValueError: `bos` is no special token.
        """
        if self.bos is None:
            return self.tokenizer.bos_id
        number = self.special_id(self.bos)
        if number is None:
            raise ValueError(f"tokenizer.bos is {self.bos!r}, no special token of the tokenizer or of tokenizer.added")
        return number

    @property
    def eos_id(self) -> int | None:
        """What ends an answer."""
        return self.tokenizer.eos_id

    @property
    def pad_id(self) -> int:
        """What collation fills with."""
        return self.tokenizer.pad_id if self.pad is None else self.tokenizer.vocab_size + self._number[self.pad]

    def special_id(self, word: str) -> int | None:
        """The id that a string stands for if it is a special token's, else None."""
        place = self._number.get(word)
        return self.tokenizer.special_id(word) if place is None else self.tokenizer.vocab_size + place

    def encode(self, texts: Iterable[str], special: bool = True) -> list[list[int]]:
        """Ragged rows of ids.

        Args:
            texts: any strings.
            special: whether the strings of special tokens become their ids; False takes them as ordinary text: for
                words of people who are not trusted.

        Raises:
            TypeError: one string in place of several.
        """
        known = self.special_ids if special else {}
        return [self._row(text, known, False) for text in listed(texts)]

    def encode_behind(self, text: str, special: bool) -> list[int]:
        """The ids of a text that stands behind a special token."""
        return self._row(text, self.special_ids if special else {}, True)

    def _row(self, text: str, known: dict[str, int], behind: bool) -> list[int]:
        row: list[int] = []
        pieces = split_special(text, known)
        for place, piece in enumerate(pieces):
            if isinstance(piece, int):
                row.append(piece)
                continue
            if self.strip and place:
                piece = piece.lstrip()
            if self.strip and place + 1 < len(pieces):
                piece = piece.rstrip()
            row += self._words(piece, behind or bool(place)) if piece else []
        return row

    def _words(self, text: str, behind: bool) -> list[int]:
        if behind and isinstance(self.tokenizer, LlamaTokenizer):  # may treat it in another way
            return self.tokenizer.encode_behind(text, special=False)
        return self.tokenizer.encode([text], special=False)[0]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8 become replacement characters.

        Args:
            ids: of the vocabulary.
            skip_special: whether special tokens are left out.

        Raises:
            ValueError: an id outside of the vocabulary.
        """
        text, waiting, first = "", list[int](), self.tokenizer.vocab_size
        for number in check_ids(ids, self.vocab_size):
            if number < first:
                waiting.append(number)
                continue
            text += self.tokenizer.decode(waiting, skip_special) if waiting else ""
            text, waiting = text + ("" if skip_special else self.added[number - first]), []
        return text + (self.tokenizer.decode(waiting, skip_special) if waiting else "")
