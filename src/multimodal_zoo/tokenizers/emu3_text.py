"""Emu3's text tokenizer: byte-level pairs, with strings that stand for special and for visual tokens."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL, numbered_ids
from multimodal_zoo.tokenizers.vocabularies import SPLIT, Vocabulary
from multimodal_zoo.tokenizers.words import listed

if TYPE_CHECKING:
    import tiktoken

#: Everything that looks like a special token; a dictionary says which of these are.
CANDIDATE = re.compile(
    r"<\|(?:endoftext|im_start|im_end|extra_[0-9]+|image token|image start|image end|visual token [0-9]{6})\|>"
)
#: The string of a visual token.
VISUAL = re.compile(r"<\|visual token ([0-9]{6})\|>")


@TOKENIZERS.register_module(name="emu3_tokenizer")
class Emu3Tokenizer:
    """Texts to ids and back, in the joint vocabulary of text, special and visual tokens (`emu3_ids`).

    Text is brought to Unicode's NFC first, so decoding gives back the normalised text. Nothing is put before or behind
    a text: where a sequence begins and ends is the processor's business. Not a word is read from the vocabulary before
    a text is encoded or decoded.

    Args:
        vocabulary: the tokens of ordinary text.
        codebook_size: number of visual tokens.

    Attributes:
        ids: which id means what.
        pad_id: what collation fills with.
        vocab_size: number of ids.
    """

    def __init__(self, vocabulary: Vocabulary, codebook_size: int) -> None:
        self.vocabulary = vocabulary
        self.ids = numbered_ids(vocabulary.size, codebook_size)
        self.pad_id = self.ids.pad
        self.vocab_size = self.ids.visual_first + codebook_size
        self._special = {word: self.pad_id + number for number, word in enumerate(SPECIAL)}

    @cached_property
    def _pairs(self) -> tiktoken.Encoding:
        import tiktoken

        return tiktoken.Encoding("emu3", pat_str=SPLIT, mergeable_ranks=self.vocabulary.ranks(), special_tokens={})

    def special_id(self, word: str) -> int | None:
        """The id that a string stands for if it is a special or visual token's, else None."""
        if (visual := VISUAL.fullmatch(word)) is not None:
            code = int(visual.group(1))
            return self.ids.visual_first + code if code < self.ids.codebook_size else None
        return self._special.get(word)

    def _split(self, text: str) -> Iterator[str | int]:
        start = 0
        for found in CANDIDATE.finditer(text):
            number = self.special_id(found.group())
            if number is not None:
                yield text[start : found.start()]
                yield number
                start = found.end()
        yield text[start:]

    def encode(self, texts: Iterable[str], special: bool = True) -> list[list[int]]:
        """Ragged rows of ids.

        Args:
            texts: any strings.
            special: whether the strings of special tokens (visual ones too) become their ids, as published, so that a
                text can hold a picture; False takes them as ordinary text: for words of people who are not trusted.

        Raises:
            TypeError: one string in place of several.
        """
        return [self._row(unicodedata.normalize("NFC", text), special) for text in listed(texts)]

    def _row(self, text: str, special: bool) -> list[int]:
        row: list[int] = []
        for piece in self._split(text) if special else (text,):
            row += [piece] if isinstance(piece, int) else self._pairs.encode_ordinary(piece)
        return row

    def piece(self, number: int) -> bytes:
        """The bytes of one id; of special and visual tokens those of their string.

        Raises:
            ValueError: no such id.
        """
        if 0 <= number < self.pad_id:
            return self._pairs.decode_single_token_bytes(number)
        if self.pad_id <= number < self.ids.visual_first:
            return SPECIAL[number - self.pad_id].encode()
        if not 0 <= number < self.vocab_size:
            raise ValueError(f"id {number}: the vocabulary has {self.vocab_size} ids, 0 to {self.vocab_size - 1}")
        return b"<|visual token %06d|>" % (number - self.ids.visual_first)

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8 become replacement characters.

        Args:
            ids: of the vocabulary.
            skip_special: whether every id that is no ordinary text is left out, visual tokens too.

        Raises:
            ValueError: an id outside of the vocabulary.
        """
        row = (int(number) for number in ids)
        pieces = (self.piece(number) for number in row if not skip_special or number < self.pad_id)
        return b"".join(pieces).decode("utf-8", errors="replace")
