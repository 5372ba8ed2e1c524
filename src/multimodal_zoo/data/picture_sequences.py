"""Conversations about pictures as sequences of tokens in which pictures stand with all their tokens (LLaVA, EVE)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.conversation_templates import Mark, Piece, Shown, Words
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.nn.patch_cells import PatchCells
from multimodal_zoo.tokenizers.added_tokens import AddedTokens
from multimodal_zoo.tokenizers.llama_tokenizer import LlamaTokenizer
from multimodal_zoo.tokenizers.words import WordTokenizer

#: What the length of a sequence counts: every token, or (published) each picture as one id.
COUNTS = ("tokens", "ids")


class PictureSample(NamedTuple):
    """One document as tokens, with its pictures.

    Attributes:
        ids: long (tokens,); at tokens of pictures any of the vocabulary.
        weights: float32 (tokens,): how much the prediction of each token from those before it counts; 0 for the first.
        vision: bool (tokens,), where tokens of pictures stand.
        cells: the pictures; None where there is none.
        teacher: float (pictures, 3, side, side), what a teacher sees of each; None where none is asked.
        boxes: which of the teacher's patches show the picture, for each.
        key: the document's name.
    """

    ids: Tensor
    weights: Tensor
    vision: Tensor
    cells: PatchCells | None
    teacher: Tensor | None
    boxes: list[Box]
    key: str

    def stored(self) -> dict[str, Any]:
        """The sample as plain values, for a checkpoint; `restored` is the inverse."""
        cells = None if self.cells is None else vars(self.cells)
        return {**self._asdict(), "cells": cells}


def restored(stored: dict[str, Any]) -> PictureSample:
    """A sample of what `PictureSample.stored` gave."""
    cells = stored["cells"]
    if cells is not None:
        cells = PatchCells(**{**cells, "grids": tuple(tuple(grid) for grid in cells["grids"])})
    boxes = [tuple(box) for box in stored["boxes"]]
    return PictureSample(**{**stored, "cells": cells, "boxes": boxes})


class Row(NamedTuple):
    """A sequence under way.

    Attributes:
        ids: of its tokens.
        learnt: whether each is what a model shall say.
        picture: the number of the picture that each belongs to, -1 for text.
    """

    ids: list[int]
    learnt: list[bool]
    picture: list[int]

    def add(self, ids: Sequence[int], learnt: Sequence[bool], picture: int = -1) -> None:
        """Put tokens behind it."""
        self.ids.extend(ids)
        self.learnt.extend(learnt)
        self.picture.extend([picture] * len(ids))


def row_of(pieces: Iterable[Piece], tokenizer: WordTokenizer, tokens: Sequence[int], special: bool) -> Row:
    """The sequence of a conversation's pieces, behind the tokenizer's begin if it has one.

    Text between two pictures or special tokens is tokenised as one, as published. What of it is learnt is known from
    the pieces: a token belongs to the first text that it holds a sign of.

    Args:
        pieces: as a template gives them.
        tokenizer: the model's.
        tokens: of each picture.
        special: whether strings of special tokens in texts become these.

    Raises:
        ValueError: a special token that the tokenizer does not have.
    """
    row, behind = Row([], [], []), False
    if tokenizer.bos_id is not None:
        row.add([tokenizer.bos_id], [False])
    for is_words, group in groupby(pieces, lambda piece: isinstance(piece, Words)):
        if is_words:
            row.add(*_tokenised([*group], tokenizer, special, behind))  # type: ignore[list-item]
            continue
        for piece in group:
            if isinstance(piece, Shown):
                count = tokens[piece.number]
                row.add([tokenizer.pad_id] * count, [False] * count, piece.number)
            elif isinstance(piece, Mark):
                row.add([_special(piece.word, tokenizer)], [piece.learnt])
            behind = isinstance(piece, Mark)
    return row


def _special(word: str, tokenizer: WordTokenizer) -> int:
    number = tokenizer.special_id(word)
    if number is None:
        raise ValueError(
            f"processor.template ends answers with {word!r}, which is no special token of {type(tokenizer).__name__}: "
            "choose the template of the tokenizer's family (vicuna_v1 for LLaMA's, qwen2 where <|im_end|> exists)"
        )
    return number


def _tokenised(
    group: Sequence[Words], tokenizer: WordTokenizer, special: bool, behind: bool
) -> tuple[list[int], list[bool]]:
    def encode(text: str) -> list[int]:
        """Its ids, nothing in front or behind."""
        # LLaMA's tokenizer may treat a text behind a special token in another way than one at the beginning
        if behind and isinstance(tokenizer, (LlamaTokenizer, AddedTokens)):
            return tokenizer.encode_behind(text, special)
        return tokenizer.encode([text], special)[0]

    text = "".join(words.text for words in group)
    ids = encode(text) if text else []
    learnt = [False] * len(ids)
    for words, end in zip(group, accumulate(len(words.text) for words in group), strict=True):
        start = end - len(words.text)
        if words.learnt:
            first = _common(ids, encode(text[:start])) if start else 0
            last = _common(ids, encode(text[:end])) if end < len(text) else len(ids)
            learnt[first:last] = [True] * (last - first)
    return ids, learnt


def _common(row: Sequence[int], start: Sequence[int]) -> int:
    """How many ids at the front are the same."""
    return next(
        (place for place, (a, b) in enumerate(zip(row, start, strict=False)) if a != b), min(len(row), len(start))
    )


def weights_of(row: Row) -> Tensor:
    """Float32 (tokens,): 1 where a token is learnt; the first one has nothing to be predicted from."""
    weights = torch.tensor(row.learnt, dtype=torch.float32)
    weights[:1] = 0
    return weights


def lengths(sample: PictureSample) -> Tensor:
    """Long (tokens,): how many ids a sequence has up to each token, each picture counted as one (published)."""
    first = torch.zeros_like(sample.vision)
    starts = _starts(sample)
    first[starts] = True
    return (first | ~sample.vision).cumsum(0)


def _starts(sample: PictureSample) -> list[int]:
    """Where each picture begins."""
    if sample.cells is None:
        return []
    places: Iterator[int] = iter(sample.vision.nonzero().flatten().tolist())
    found = []
    for count in sample.cells.tokens:
        run = [next(places) for _ in range(count)]
        found.append(run[0])
    return found


def shortened(sample: PictureSample, limit: int, count: str = "tokens") -> PictureSample:
    """A sample whose end is cut off; no picture is ever cut or lost.

    Args:
        sample: of any length.
        limit: what is left at most.
        count: one of `COUNTS`, what the limit counts.

    Raises:
        UnusableError: a picture would be cut or lost, with the counts.
    """
    size = lengths(sample) if count == "ids" else torch.arange(1, len(sample.ids) + 1)
    kept = int((size <= limit).sum())
    lost = int(sample.vision[kept:].sum())
    if lost:
        raise UnusableError(
            f"picture beyond the {limit} {count} of data.batching.context_length",
            f"{sample.key} ({len(sample.ids)} tokens, {lost} of {int(sample.vision.sum())} tokens of pictures beyond)",
        )
    return sample._replace(ids=sample.ids[:kept], weights=sample.weights[:kept], vision=sample.vision[:kept])
