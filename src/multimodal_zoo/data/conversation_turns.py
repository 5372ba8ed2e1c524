"""Documents as questions and answers: who says what, and which pictures a question is about."""

from __future__ import annotations

from typing import cast

from multimodal_zoo.data.conversation_templates import Turn
from multimodal_zoo.data.documents import Codes, Document, Image, Picture, Seen, Text, Video

#: Who may speak.
ROLES = ("user", "assistant")
#: The role of a text that is one special token, by its string (Emu).
TOKEN = "token"


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
    turns, pictures = turns_of(with_answer(document))
    for number, turn in enumerate(turns, start=1):
        if turn.answer is None:
            raise UnfitDocumentError("question without an answer", document, f"turn {number} of {len(turns)}")
        if not turn.answer.strip():
            raise UnfitDocumentError("empty answer", document, f"turn {number} of {len(turns)}")
    return turns, pictures


def with_answer(document: Document) -> Document:
    """A document of which no text has a role, with the last text as the answer behind everything else."""
    spoken = [(place, one) for place, one in enumerate(document.segments) if isinstance(one, Text)]
    spoken = [(place, one) for place, one in spoken if one.role != TOKEN]
    if not spoken or any(one.role is not None for _, one in spoken):
        return document
    place, last = spoken[-1]
    rest = [one for number, one in enumerate(document.segments) if number != place]
    return Document([*rest, Text(last.text, "assistant")], document.meta)
