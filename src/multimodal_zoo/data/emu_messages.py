"""Documents of words, pictures and clips as messages: who says what, and which pictures belong to whom (Emu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from multimodal_zoo.data.conversation_templates import Mark, Piece, Shown, Words
from multimodal_zoo.data.conversation_turns import TOKEN, UnfitDocumentError
from multimodal_zoo.data.documents import Codes, Document, Picture, Seen, Segment, Text, Video

#: Who may speak; see `TOKEN` for what nobody says.
ROLES = ("system", "user", "assistant")
#: Stands in front of the frames of a clip, where frames are told from pictures.
VIDEO = "[VIDEO]"


class Message(NamedTuple):
    """What one speaker says at a time.

    Attributes:
        role: one of `ROLES`.
        pieces: words, special tokens and pictures.
    """

    role: str
    pieces: tuple[Piece, ...]


class Conversation(NamedTuple):
    """A document taken apart.

    Attributes:
        messages: in order.
        pictures: all pictures, frames of clips among them, or what a model saw of them; `Shown` numbers them.
        frames: whether each is a frame of a clip.
    """

    messages: list[Message]
    pictures: list[Picture | Seen]
    frames: list[bool]


def conversation_of(document: Document, lesson: bool = False, video_token: bool = False) -> Conversation:
    """The messages of a document; several segments of one speaker in a row are one message.

    Texts without a role are the user's. A picture or token between two texts of the assistant is the assistant's, as is
    one behind the last answer of a lesson; any other is the user's.

    Args:
        document: texts, pictures and clips.
        lesson: whether it is to learn from, not to go on with.
        video_token: whether `[VIDEO]` stands in front of a clip.

    Raises:
        UnfitDocumentError: codes, another role, or a system message that is not the first.
    """
    found = Conversation([], [], [])
    for segment, role in zip(document.segments, _speakers(document, lesson), strict=True):
        pieces = _pieces(segment, found, video_token)
        if role == "system" and any(one.role != "system" for one in found.messages):
            raise UnfitDocumentError("system message in the middle", document, "it must be the first text")
        if found.messages and found.messages[-1].role == role:
            found.messages[-1] = Message(role, found.messages[-1].pieces + pieces)
        else:
            found.messages.append(Message(role, pieces))
    return found


def _pieces(segment: Segment, found: Conversation, video_token: bool) -> tuple[Piece, ...]:
    if isinstance(segment, Text):
        return (Mark(segment.text) if segment.role == TOKEN else Words(segment.text),)
    clip, pictures = isinstance(segment, Video), _shown(segment)
    first = len(found.pictures)
    found.pictures.extend(pictures)
    found.frames.extend([clip] * len(pictures))
    shown = tuple(Shown(first + place) for place in range(len(pictures)))
    return (Mark(VIDEO), *shown) if clip and video_token else shown


def _shown(segment: Segment) -> list[Picture | Seen]:
    if isinstance(segment, Video):
        return list(segment.frames)
    return [segment if isinstance(segment, Seen) else segment.image]  # type: ignore[union-attr]


def _speakers(document: Document, lesson: bool) -> list[str]:
    """Who says each segment."""
    given = [_role(segment, document) for segment in document.segments]
    speakers: list[str] = []
    for place, role in enumerate(given):
        if role is not None:
            speakers.append(role)
            continue
        before = next((one for one in reversed(given[:place]) if one), None)
        behind = next((one for one in given[place + 1 :] if one), None)
        own = before == "assistant" and (behind == "assistant" or (behind is None and lesson))
        speakers.append("assistant" if own else "user")
    return speakers


def _role(segment: Segment, document: Document) -> str | None:
    if isinstance(segment, Codes):
        raise UnfitDocumentError("codes", document, "this model reads texts, pictures and clips")
    if not isinstance(segment, Text) or segment.role == TOKEN:
        return None
    if segment.role not in (None, *ROLES):
        known = ", ".join((*ROLES, TOKEN))
        raise UnfitDocumentError("unknown role", document, f"{segment.role!r} speaks; known are {known}")
    return segment.role or "user"


def said(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces as what a model shall say."""
    return [piece._replace(learnt=True) for piece in pieces]
