"""Answers in words to questions about pictures, or to texts alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.generation.loop import Progress
from multimodal_zoo.generation.prompts import left_padded
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.inference.speaking import document_of, encoded, evaluating, parts_of, require_speaker, seeds_of

#: Most tokens of an answer in the published script (baaivision/Emu3, multimodal_understanding.py).
MAX_NEW_TOKENS = 1024


def answer(
    model: nn.Module,
    documents: str | Document | Sequence[str | Document],
    *,
    sampling: Sampling | None = None,
    max_new_tokens: int | None = None,
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    special: bool = True,
    on_token: Callable[[Progress], None] | None = None,
) -> list[str]:
    """Answer questions; the prompt is the processor's `understanding`.

        model = zoo.create("emu3_tiny")
        (text,) = answer(model, Document([Image(picture), Text("What is this?")]))

    Args:
        model: an Emu3 with its processor; its visual tokenizer is needed for pictures that are not codes yet.
        documents: a text each, and pictures, clips or codes before it where it asks about any; or texts alone.
        sampling: how tokens are chosen; None takes the likeliest, as published.
        max_new_tokens: most tokens of an answer; None for the published 1,024, or fewer where the decoder has not so
            many positions left.
        seed: of the first answer, the others have those behind it; or one for each. Only used where tokens are drawn.
        batch_size: answers written at a time; None for all at once.
        special: whether strings of special tokens in texts become these, as published; if not, they stay text.
        on_token: called after every token of a batch.

    Returns:
        the answers, without special and visual tokens.

    Raises:
        TypeError: a model that does not write.
        ValueError: a document with several texts, pictures without a visual tokenizer, more tokens than positions.
    """
    emu3, processor = require_speaker(model, "answer")
    given = [documents] if isinstance(documents, (str, Document)) else documents
    asked = [document_of(one) for one in given]
    seeds, sampling, answers = seeds_of(seed, len(asked)), sampling or Sampling(greedy=True), []
    with evaluating(emu3) as device:
        for chosen in parts_of(len(asked), batch_size):
            rows = [
                processor.understanding_prompt(_question(one), _codes(one), special)
                for one in encoded(emu3, processor, asked[chosen], device)
            ]
            prompts = left_padded(rows, processor.ids.pad).to(device)
            room = emu3.decoder.max_positions - prompts.inputs.shape[1] + 1  # the last token is not read
            steps = max(1, min(MAX_NEW_TOKENS, room)) if max_new_tokens is None else max_new_tokens
            done = emu3.generate(
                prompts, emu3.text_steps(steps), sampling=sampling, seeds=seeds[chosen], on_token=on_token
            )
            for row, length in zip(done.ids, done.lengths, strict=True):
                answers.append(processor.decode(row[: int(length)].tolist()))
    return answers


def _question(document: Document) -> str:
    texts = [segment.text for segment in document.segments if isinstance(segment, Text)]
    if len(texts) > 1:
        raise ValueError(
            f"document {document.key!r} has {len(texts)} texts; a question is one text behind its pictures"
        )
    return texts[0] if texts else ""


def _codes(document: Document) -> list[np.ndarray]:
    return [segment.codes for segment in document.segments if isinstance(segment, Codes)]
