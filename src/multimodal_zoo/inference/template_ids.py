"""Questions and answers in the layout of a processor's template, as ids."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch

from multimodal_zoo.data.documents import Document, Segment, Text


def question_ids(processor: Any, asked: Sequence[Segment]) -> list[int]:
    """The prompt of a question, up to where its answer begins; strings in it never become special tokens.

    Args:
        processor: with `prompt`.
        asked: the question.
    """
    return _listed(processor.prompt(Document([*asked]), special=False).ids)


def answer_ids(processor: Any, asked: Sequence[Segment], text: str, end: bool) -> list[int]:
    """What the template has behind `question_ids` for an answer.

    Args:
        processor: with `prompt`, `sample` and `ids`.
        asked: the question.
        text: the answer; the template has a space of its own in front.
        end: whether what ends an answer is part of it.

    Raises:
        ValueError: a template that does not go on from its own prompt.
    """
    before, told = question_ids(processor, asked), [*asked, Text(text.strip(), role="assistant")]
    whole = _listed(processor.sample(Document(told), Random(0), special=False).ids)
    if whole[: len(before)] != before:
        question = "".join(one.text for one in asked if isinstance(one, Text))
        raise ValueError(f"the processor's template does not begin {text!r} with its own prompt of {question!r}")
    found = whole[len(before) :]
    return found[:-1] if not end and found[-1:] == [processor.ids.eos] else found


def _listed(ids: Any) -> list[int]:
    return ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
