"""Qwen2's tokenizer: byte-level pairs of a vocabulary, with special tokens numbered behind it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.vocabularies import SPLIT, Vocabulary
from multimodal_zoo.tokenizers.words import check_ids, listed, split_special

if TYPE_CHECKING:
    import tiktoken

#: The special tokens of Qwen2.5 in the order of their ids, the first behind its 151,643 tokens of text.
QWEN2_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
)  # fmt: skip


@TOKENIZERS.register_module(name="qwen2_tokenizer")
class Qwen2Tokenizer:
    """Texts to ids and back with Qwen2's way of cutting words (it is that of Emu3's vocabulary too).

    Text is brought to Unicode's NFC first. Nothing is put before or behind a text, and not a word is read from the
    vocabulary before a text is encoded or decoded.

    Args:
        vocabulary: the tokens of ordinary text.
        special: the strings of special tokens in the order of their ids, which go on behind the vocabulary.
        eos: the one that ends an answer.
        pad: the one that collation fills with.

    Attributes:
        bos_id: None; sequences have no begin.
        eos_id: what ends an answer.
        pad_id: what collation fills with.
        vocab_size: number of ids.

    Raises:
        ValueError: an end or a padding token that is none of `special`.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        special: Sequence[str] = QWEN2_SPECIAL,
        eos: str = "<|im_end|>",
        pad: str = "<|endoftext|>",
    ) -> None:
        self.vocabulary = vocabulary
        self._special = {word: vocabulary.size + number for number, word in enumerate(special)}
        if absent := [word for word in (eos, pad) if word not in self._special]:
            raise ValueError(f"tokenizer.special is {list(special)}; it lacks {absent[0]!r} (tokenizer.eos or .pad)")
        self.bos_id: int | None = None
        self.eos_id: int | None = self._special[eos]
        self.pad_id = self._special[pad]
        self.vocab_size = vocabulary.size + len(self._special)

    @cached_property
    def _pairs(self) -> tiktoken.Encoding:
        import tiktoken

        return tiktoken.Encoding("qwen2", pat_str=SPLIT, mergeable_ranks=self.vocabulary.ranks(), special_tokens={})

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pairs"}

    @property
    def special_ids(self) -> Mapping[str, int]:
        """String -> id of every special token."""
        return self._special

    def special_id(self, word: str) -> int | None:
        """The id that a string stands for if it is a special token's, else None."""
        return self._special.get(word)

    def encode(self, texts: Iterable[str], special: bool = True) -> list[list[int]]:
        """Ragged rows of ids.

        Args:
            texts: any strings.
            special: whether the strings of special tokens become their ids; False takes them as ordinary text: for
                words of people who are not trusted.

        Raises:
            TypeError: one string in place of several.
        """
        return [self._row(text, special) for text in listed(texts)]

    def _row(self, text: str, special: bool) -> list[int]:
        row: list[int] = []
        for piece in split_special(text, self._special) if special else [text]:
            if isinstance(piece, int):
                row.append(piece)
            else:
                row += self._pairs.encode_ordinary(unicodedata.normalize("NFC", piece))
        return row

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of some ids; bytes that are no UTF-8 become replacement characters.

        Args:
            ids: of the vocabulary.
            skip_special: whether special tokens are left out.

        Raises:
            ValueError: an id outside of the vocabulary.
        """
        names = {number: word.encode() for word, number in self._special.items()}
        size, found = self.vocabulary.size, []
        for number in check_ids(ids, self.vocab_size):
            if number < size:
                found.append(self._pairs.decode_single_token_bytes(number))
            elif not skip_special:
                found.append(names[number])
        return b"".join(found).decode("utf-8", errors="replace")
