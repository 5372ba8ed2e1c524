"""What must match the weights of a model of texts alone: its tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.registry import DATASETS
from multimodal_zoo.tokenizers.words import WordTokenizer


class TextIds(NamedTuple):
    """The ids that frame texts.

    Attributes:
        begin: what stands in front of a text: the begin token where the tokenizer's publisher puts one, else nothing.
        eos: ends an answer.
        pad: what collation fills with.
    """

    begin: tuple[int, ...]
    eos: int
    pad: int

    @staticmethod
    def is_visual(ids: Tensor) -> Tensor:
        """Which ids are visual tokens: none are."""
        return torch.zeros_like(ids, dtype=torch.bool)


class WordProcessor:
    """Words to ids and back: what the processors of all models that write share.

    Attributes:
        tokenizer: the tokenizer.
    """

    tokenizer: WordTokenizer

    def text_ids(self, text: str, special: bool = True) -> list[int]:
        """The ids of a text, nothing in front or behind.

        Args:
            text: any.
            special: whether strings of special tokens become these; False for words of people who are not trusted.
        """
        return self.tokenizer.encode([text], special)[0]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of some ids; without `skip_special` the strings of special tokens are in it."""
        return self.tokenizer.decode(ids, skip_special)


@DATASETS.register_module(name="text_processor")
class TextProcessor(WordProcessor):
    """Texts to ids and back.

    Nothing is read from the tokenizer before a text is: a model can be built without its files.

    Args:
        texts: the tokenizer.

    Attributes:
        tokenizer: the tokenizer.
    """

    def __init__(self, texts: WordTokenizer) -> None:
        self.tokenizer = texts

    @cached_property
    def ids(self) -> TextIds:
        """The ids that frame texts.

        Raises:
            ValueError: a tokenizer without an end.
        """
        tokenizer = self.tokenizer
        if tokenizer.eos_id is None:
            raise ValueError(f"model.processor.texts ({type(tokenizer).__name__}) has no end token")
        begins = tokenizer.bos_id is not None and getattr(tokenizer, "adds_bos", False)
        return TextIds((int(tokenizer.bos_id),) if begins else (), tokenizer.eos_id, tokenizer.pad_id)  # type: ignore[arg-type]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(row) for row in self.tokenizer.encode(texts, False)]

    def cut(self, text: str, tokens: int) -> str:
        """A text without its last so many tokens."""
        return self.decode(self.text_ids(text, False)[:-tokens]) if tokens > 0 else text
