"""Which conversation a training document is: the one it holds, or a question about a captioned picture."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.registry import DATASETS


class ConversationLayout(Protocol):
    """How a document becomes a conversation.

    Attributes:
        special: whether strings of special tokens in its texts become these tokens.
    """

    special: bool

    def __call__(self, document: Document, random: Random) -> Document:
        """A document of questions and answers; `random` is seeded for this sample."""
        ...


@DATASETS.register_module(name="conversation_turns")
class ConversationTurns:
    """Conversations as they are.

    Args:
        special: whether strings of special tokens in texts become these tokens, as published.
    """

    def __init__(self, special: bool = True) -> None:
        self.special = special

    def __call__(self, document: Document, random: Random) -> Document:
        """The document itself."""
        return document


@DATASETS.register_module(name="caption_turns")
class CaptionTurns:
    """The pictures of a document, a question about them, and a caption as the answer.

    Plain templates leave the question out, so that any pairs of pictures and texts serve for the first stages.

    Args:
        captions: chooses the text.
        questions: one of them is drawn; an empty one asks nothing.
        special: whether strings of special tokens in texts become these tokens, as published.

    Raises:
        ValueError: no question.
    """

    def __init__(self, captions: CaptionSampler, questions: Sequence[str] = ("",), special: bool = True) -> None:
        if not questions:
            raise ValueError("data.layout.questions is empty; give at least one, '' for none")
        self.captions, self.questions, self.special = captions, list(questions), special

    def __call__(self, document: Document, random: Random) -> Document:
        """A conversation of one turn."""
        question, answer = random.choice(self.questions), self.captions(document, random)
        asked = [Text(question, "user")] if question else []
        pictures = [segment for segment in document.segments if isinstance(segment, Image)]
        segments: list[Segment] = [*pictures, *asked, Text(answer, "assistant")]
        return Document(segments, document.meta)


@DATASETS.register_module(name="told_by")
class ToldBy:
    """Conversations behind a system message of their own, in place of the template's: a kind of task among others.

    Args:
        system: the message; an empty one takes the template's away.
        layout: which conversation a document is.
    """

    def __init__(self, system: str, layout: ConversationLayout) -> None:
        self.system, self.layout, self.special = system, layout, layout.special

    def __call__(self, document: Document, random: Random) -> Document:
        """The conversation with the message in front of it; one that has a message keeps that."""
        told = self.layout(document, random)
        if any(isinstance(segment, Text) and segment.role == "system" for segment in told.segments):
            return told
        return Document([Text(self.system, "system"), *told.segments], told.meta)
