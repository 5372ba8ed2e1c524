"""Layouts of Emu3's training sequences: which text and which picture stands where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import numpy as np

from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.documents import Codes, Document, Text
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.limits import probability
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.token_sequences import Layout, Span, codes_of, framed, text_span
from multimodal_zoo.registry import DATASETS


def _first_codes(document: Document) -> np.ndarray:
    codes = codes_of(document)
    if not codes:
        raise ValueError(f"document {document.key!r} has no picture; layouts of pairs need one (data.layout)")
    return codes[0]


@DATASETS.register_module(name="text_to_image_layout")
class TextToImageLayout:
    """Caption, then picture: begin, text, picture, end (pretraining), or without the end (the released fine-tuning).

    Args:
        captions: chooses the text.
        null_prompt_probability: how often the text is left out, for guidance; 0.05 in the released fine-tuning.
        end: whether the sequence has an end; the released fine-tuning has none.
        special: whether strings of special tokens in texts become these tokens, as published.
    """

    def __init__(
        self, captions: CaptionSampler, null_prompt_probability: float, end: bool, special: bool = True
    ) -> None:
        self.captions, self.end, self.special = captions, end, special
        self.null_prompt_probability = probability(null_prompt_probability, "data.layout.null_prompt_probability")

    def __call__(self, document: Document, processor: Emu3Processor, random: Random) -> list[Span]:
        """The stretches of a document with a picture and a text."""
        codes = _first_codes(document)
        text = "" if random.random() < self.null_prompt_probability else self.captions(document, random)
        words = text_span(processor.text_ids(text, self.special), "text")
        return framed(processor, [words, Span(processor.picture(codes), "picture")], self.end)


@DATASETS.register_module(name="image_to_text_layout")
class ImageToTextLayout:
    """Picture, then caption: begin, picture, text, end. Part of the pretraining data (arXiv 2409.18869, section 2.3).

    Args:
        captions: chooses the text.
        end: whether the sequence has an end.
        special: whether strings of special tokens in texts become these tokens, as published.
    """

    def __init__(self, captions: CaptionSampler, end: bool = True, special: bool = True) -> None:
        self.captions, self.end, self.special = captions, end, special

    def __call__(self, document: Document, processor: Emu3Processor, random: Random) -> list[Span]:
        """The stretches of a document with a picture and a text."""
        picture = Span(processor.picture(_first_codes(document)), "picture")
        words = text_span(processor.text_ids(self.captions(document, random), self.special), "text")
        return framed(processor, [picture, words], self.end)


@DATASETS.register_module(name="document_layout")
class DocumentLayout:
    """All texts, pictures and clips in reading order: text alone, interleaved pages, several pictures.

    Args:
        end: whether the sequence has an end.
        special: whether strings of special tokens in texts become these tokens, as published.
    """

    def __init__(self, end: bool = True, special: bool = True) -> None:
        self.end, self.special = end, special

    def __call__(self, document: Document, processor: Emu3Processor, random: Random) -> list[Span]:
        """The stretches of any document."""
        codes_of(document)
        spans = []
        for segment in document.segments:
            if isinstance(segment, Text):
                spans.append(text_span(processor.text_ids(segment.text, self.special), "text"))
            elif isinstance(segment, Codes):
                spans.append(Span(processor.picture(segment.codes), "picture"))
        return framed(processor, spans, self.end)


@DATASETS.register_module(name="chat_layout")
class ChatLayout:
    """A conversation about pictures: the processor's template for the first question, `turn` for later ones.

    The first question and its frame are as published (the template of Emu3-Chat). How answers follow it and how a
    conversation goes on was never published: an answer with a blank in front, the end, and `turn` are our choice.

    Args:
        turn: later questions, with places `{image}` and `{text}`.
        special: whether strings of special tokens in texts become these tokens, as published.

    Raises:
        ValueError: a template without its places.
    """

    def __init__(self, turn: str = " USER: {image}{text}. ASSISTANT:", special: bool = True) -> None:
        if turn.count("{text}") != 1 or turn.count("{image}") != 1:
            raise ValueError(f"data.layout.turn is {turn!r}; it needs {{image}} and {{text}} once each")
        self.turn, self.special = turn, special

    def __call__(self, document: Document, processor: Emu3Processor, random: Random) -> list[Span]:
        """The stretches of a document whose texts have the roles `user` and `assistant` in turn.

        Raises:
            ValueError: other roles, or another order.
        """
        spans: list[Span] = []
        for number, (question, codes, answer) in enumerate(turns(document)):
            template = self.turn if number else processor.understanding
            for part, is_picture in processor.filled(template, question, codes, self.special):
                spans.append(Span(part, "picture" if is_picture else "prompt"))
            spans.append(text_span(processor.text_ids(f" {answer}", self.special), "text"))
            spans.append(text_span([processor.ids.eos], "end"))
        return framed(processor, spans, end=False)


def turns(document: Document) -> Iterator[tuple[str, list[np.ndarray], str]]:
    """Question, its pictures, and answer of each turn of a conversation; pictures belong to the question behind them.

    Raises:
        ValueError: texts without roles: data of another kind.
        UnusableError: user and assistant do not speak in turn, or the last question has no answer.
    """
    codes: list[np.ndarray] = []
    question: str | None = None
    codes_of(document)
    for segment in document.segments:
        if isinstance(segment, Codes):
            codes.append(segment.codes)
        elif isinstance(segment, Text):
            if segment.role is None:
                raise ValueError(
                    f"document {document.key!r} is no conversation, its texts have no roles: data.layout.type is "
                    "chat_layout, choose another"
                )
            if segment.role != (expected := "user" if question is None else "assistant"):
                raise UnusableError("turns out of order", f"{document.key} ({segment.role} in place of {expected})")
            if question is None:
                question = segment.text
                continue
            yield question, codes, segment.text
            question, codes = None, []
    if question is not None or codes:
        raise UnusableError("no answer at the end", document.key)


@DATASETS.register_module(name="layout_mixture")
class LayoutMixture:
    """One of several layouts for each sample, at random: both directions of one pair, say.

    Args:
        layouts: by name.
        weights: by name, how often each is taken; any positive numbers.

    Raises:
        ValueError: weights that do not fit.
    """

    def __init__(self, layouts: Mapping[str, Layout], weights: Mapping[str, float]) -> None:
        if not layouts or set(layouts) != set(weights) or not all(weight > 0 for weight in weights.values()):
            raise ValueError(
                f"data.layout.weights is {dict(weights)}; it needs a positive number for each of {', '.join(layouts)}"
            )
        self.layouts = [layouts[name] for name in weights]
        self.weights = list(weights.values())

    def __call__(self, document: Document, processor: Emu3Processor, random: Random) -> list[Span]:
        """The stretches that the drawn layout gives."""
        (layout,) = random.choices(self.layouts, self.weights)
        return layout(document, processor, random)
