"""Tokenizers of transformers from a local folder; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from multimodal_zoo.registry import TOKENIZERS
from multimodal_zoo.tokenizers.words import framed, listed


@TOKENIZERS.register_module(name="transformers_tokenizer")
class TransformersTokenizer:
    """A tokenizer of transformers that frames texts with special words (BERT, RoBERTa, ...).

    Rows are ragged and hold start and end; padding belongs to collation. A text longer than the context is cut, and
    its last id is the end id; `truncated` counts how often that happened. Code that a folder brings along is never run.

    Args:
        folder: local folder with the tokenizer's files (`tokenizer.json` or `vocab.txt`, `tokenizer_config.json`).
        context_length: most ids per text, start and end included.
        vocab_size: number of ids of the text tower; the tokenizer's own must fit.

    Attributes:
        start_id: first id of every row ([CLS]).
        end_id: last id of every row ([SEP]).
        pad_id: what collation puts behind a row.
        mask_id: stands for a hidden word, or None.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no start, end or padding word, or more ids than the tower has.
    """

    def __init__(self, folder: str, context_length: int, vocab_size: int) -> None:
        from transformers import AutoTokenizer

        if not Path(folder).is_dir():
            raise FileNotFoundError(f"texts.folder: no folder {folder}; it must hold the tokenizer's files")
        if context_length < 2:
            raise ValueError(f"texts.context_length is {context_length}; start and end alone take 2")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        ids = {name: getattr(self._tokenizer, f"{name}_token_id") for name in ("cls", "sep", "pad", "mask")}
        if absent := [name for name in ("cls", "sep", "pad") if ids[name] is None]:
            raise ValueError(f"texts.folder: the tokenizer in {folder} has no {', '.join(absent)} word; choose another")
        if len(self._tokenizer) > vocab_size:
            raise ValueError(
                f"texts.vocab_size is {vocab_size}; the tokenizer in {folder} has {len(self._tokenizer)} ids"
            )
        self.context_length, self.vocab_size, self.truncated = context_length, vocab_size, 0
        self.start_id, self.end_id, self.pad_id, self.mask_id = ids["cls"], ids["sep"], ids["pad"], ids["mask"]

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Ragged rows of ids, each from the start id to the end id and at most `context_length` long.

        Raises:
            TypeError: one string in place of several.
        """
        whole = listed(texts)
        words = self._tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"] if whole else []
        self.truncated += sum(len(row) > self.context_length - 2 for row in words)
        return [framed(self.start_id, row, self.end_id, self.context_length) for row in words]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a row without special words."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)).strip()
