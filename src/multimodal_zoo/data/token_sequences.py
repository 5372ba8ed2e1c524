"""Documents as sequences of tokens, with how much the prediction of each token counts."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.registry import DATASETS
from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids

#: Kinds of stretches: the sequence's begin, text to learn, text that only asks, a picture or clip, the sequence's end.
KINDS = ("begin", "text", "prompt", "picture", "end")


class Span(NamedTuple):
    """A stretch of a sequence.

    Attributes:
        ids: long (tokens,).
        kind: one of `KINDS`.
    """

    ids: Tensor
    kind: str


class TokenSample(NamedTuple):
    """One document as tokens.

    Attributes:
        ids: long (tokens,).
        weights: float32 (tokens,): how much the prediction of each token from those before it counts; 0 for the first.
        key: the document's name.
    """

    ids: Tensor
    weights: Tensor
    key: str

    def stored(self) -> dict[str, Any]:
        """The sample as plain values, for a checkpoint."""
        return self._asdict()


class Layout(Protocol):
    """How a document becomes a sequence."""

    def __call__(self, document: Document, processor: Emu3Processor, random: Random) -> list[Span]:
        """The stretches in order; `random` is seeded for this sample."""
        ...


@DATASETS.register_module(name="token_weights")
class TokenWeights:
    """How much each kind of token counts in the loss; 0: it is read and not learnt.

    Published: vision 0.5 in pretraining; vision only in quality fine-tuning and in the released fine-tuning; no vision
    in the first stage of chat (arXiv 2409.18869, sections 2.4 to 2.6, and the released code).

    Args:
        text: captions and answers.
        vision: visual tokens.
        layout: what else belongs to a picture: its begin, size, image token, line and frame ends, end.
        prompt: questions and what frames them.
        end: the end of the sequence.

    Raises:
        ValueError: a negative weight, or none above 0.
    """

    def __init__(self, text: float, vision: float, layout: float, prompt: float, end: float) -> None:
        self.values = {"text": text, "vision": vision, "layout": layout, "prompt": prompt, "end": end}
        if min(self.values.values()) < 0 or not any(self.values.values()):
            raise ValueError(f"data.weights is {self.values}; expected numbers of at least 0, one of them above it")

    def __call__(self, spans: Sequence[Span], ids: Emu3Ids, key: str) -> TokenSample:
        """The sample of a sequence's stretches.

        Args:
            spans: in order.
            ids: tells visual tokens.
            key: the document's name.
        """
        joined = torch.cat([span.ids for span in spans])
        weights = [self._weights(span, ids) for span in spans]
        weights[0][:1] = 0.0
        return TokenSample(joined, torch.cat(weights), key)

    def _weights(self, span: Span, ids: Emu3Ids) -> Tensor:
        if span.kind == "begin":
            return torch.zeros(len(span.ids))
        # visual tokens may stand in texts as well, written as strings: the released code learns these too
        other = self.values["layout" if span.kind == "picture" else span.kind]
        return torch.where(ids.is_visual(span.ids), self.values["vision"], other).float()


def text_span(ids: Sequence[int], kind: str) -> Span:
    """A stretch of given ids."""
    return Span(torch.tensor(ids, dtype=torch.long), kind)


def codes_of(document: Document) -> list[np.ndarray]:
    """The codes of the document's pictures and clips, in order.

    Raises:
        ValueError: it has pictures or clips that are not encoded yet.
    """
    for segment in document.segments:
        if not isinstance(segment, (Codes, Text)):
            raise ValueError(
                f"document {document.key!r} has a {type(segment).__name__.lower()} that is not encoded: encode the "
                "data with mmzoo tokenize, or read them through tokenized_pairs"
            )
    return [segment.codes for segment in document.segments if isinstance(segment, Codes)]


def framed(processor: Emu3Processor, spans: Sequence[Span], end: bool) -> list[Span]:
    """Stretches behind the begin, and before the end of a sequence if it has one; empty ones are left out."""
    last = [text_span([processor.ids.eos], "end")] if end else []
    return [text_span([processor.ids.bos], "begin"), *(span for span in spans if len(span.ids)), *last]


def sequences(
    documents: Sequence[Document],
    processor: Emu3Processor,
    layout: Layout,
    weights: TokenWeights,
    random: Random,
) -> list[TokenSample]:
    """Documents, whose pictures are encoded, as token samples.

    Args:
        documents: with codes in place of pictures (`visual_codes.with_codes`).
        processor: the model's.
        layout: how each becomes a sequence.
        weights: what counts.
        random: of what a layout draws.
    """
    return [weights(layout(one, processor, random), processor.ids, one.key) for one in documents]
