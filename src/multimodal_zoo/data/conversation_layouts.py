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
