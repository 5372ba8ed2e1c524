"""Documents as questions and answers: who says what, and which pictures a question is about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from multimodal_zoo.data.conversation_templates import Turn
from multimodal_zoo.data.documents import Codes, Document, Image, Picture, Seen, Segment, Text, Video

#: Who may speak.
ROLES = ("user", "assistant")


class UnfitDocumentError(ValueError):
    """A document that is no conversation about pictures.

    Args:
        reason: short and countable.
        document: which one.
        detail: what is wrong with it.
    """

    def __init__(self, reason: str, document: Document, detail: str) -> None:
        super().__init__(f"document {document.key!r}: {reason}: {detail}")
        self.reason, self.detail = reason, detail


class _Open:
    """A turn under way."""

    def __init__(self) -> None:
        self.question, self.answer = "", cast("str | None", None)
        self.pictures: list[int] = []

    def closed(self) -> Turn:
        """The turn as it is."""
        return Turn(self.question, tuple(self.pictures), self.answer)


def turns_of(document: Document) -> tuple[list[Turn], list[Picture]]:
    """The turns of a document, and its pictures in order.

    A picture belongs to the question that it stands before, in or behind; several texts of the user in a row are one
    question. Texts without a role are the user's.

    Raises:
        UnfitDocumentError: clips or codes, another role, or two answers in a row.
    """
    turns = [_Open()]
    pictures: list[Picture] = []
    for segment in document.segments:
        if isinstance(segment, (Video, Codes, Seen)):
            raise UnfitDocumentError("clips or codes", document, "this model reads pictures and texts")
        if isinstance(segment, Text) and segment.role not in (None, *ROLES):
            raise UnfitDocumentError("unknown role", document, f"{segment.role!r} speaks; known are {', '.join(ROLES)}")
        if isinstance(segment, Text) and segment.role == "assistant":
            if turns[-1].answer is not None:
                raise UnfitDocumentError("two answers in a row", document, f"the second is {segment.text[:40]!r}")
            turns[-1].answer = segment.text
            continue
        if turns[-1].answer is not None:
            turns.append(_Open())
        if isinstance(segment, Image):
            turns[-1].pictures.append(len(pictures))
            pictures.append(segment.image)
        else:
            turns[-1].question += segment.text
    return [turn.closed() for turn in turns], pictures


def question_of(document: Document) -> tuple[list[Turn], list[Picture]]:
    """The turns of a document that waits for an answer: the last one has none; see `turns_of`."""
    turns, pictures = turns_of(document)
    if turns[-1].answer is not None:
        turns.append(Turn("", (), None))
    return turns, pictures


def lesson_of(document: Document) -> tuple[list[Turn], list[Picture]]:
    """The turns of a document to learn from: each has an answer. Of texts without any role the last one is the answer.

    Raises:
        UnfitDocumentError: an empty answer or none; or see `turns_of`.
    """
    texts = [place for place, one in enumerate(document.segments) if isinstance(one, Text)]
    if texts and all(document.segments[place].role is None for place in texts):  # type: ignore[union-attr]
        document = Document(_answered(document.segments, texts[-1]), document.meta)
    turns, pictures = turns_of(document)
    for number, turn in enumerate(turns, start=1):
        if turn.answer is None:
            raise UnfitDocumentError("question without an answer", document, f"turn {number} of {len(turns)}")
        if not turn.answer.strip():
            raise UnfitDocumentError("empty answer", document, f"turn {number} of {len(turns)}")
    return turns, pictures


def _answered(segments: Sequence[Segment], place: int) -> list[Segment]:
    """Segments with the text at a place as the answer, behind everything else."""
    last = segments[place]
    assert isinstance(last, Text)
    rest = [one for number, one in enumerate(segments) if number != place]
    return [*rest, Text(last.text, "assistant")]
