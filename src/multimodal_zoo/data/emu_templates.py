"""How Emu and Emu2 write documents down: plain, as chats between role tokens, as few-shot questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from multimodal_zoo.catalogue import require
from multimodal_zoo.data.conversation_templates import Mark, Piece, Shown, Words
from multimodal_zoo.data.emu_messages import VIDEO, Conversation, Message, said
from multimodal_zoo.tokenizers.words import split_special

USER, ASSISTANT, GROUNDING = "[USER]", "[ASSISTANT]", "<grounding>"
IMAGE_BEGIN, IMAGE_END, IMAGE, FRAME = "[IMG]", "[/IMG]", "<image>", "[gIMG]"
#: Emu-I's system messages; their brackets become special tokens without a picture in between (published).
EMU_IMAGE = (
    "You will be presented with an image: [IMG]ImageContent[/IMG]. You will be able to see the image after I provide "
    "it to you. Please answer my questions based on the given image."
)
EMU_VIDEO = (
    "You are a helpful assistant and you will be presented with a video consisting of multiple chronological images: "
    "[IMG]ImageContent[/IMG]. You will be able to see the video after I provide it to you. Please answer my questions "
    "based on the given video."
)
#: Emu2-Chat's: for long answers, and for short ones and for places in pictures.
EMU2_LONG = "You are a helpful assistant, dedicated to delivering comprehensive and meticulous responses."
EMU2_SHORT = "You are a helpful assistant, dedicated to provide concise and efficient answers."


class EmuTemplate(Protocol):
    """A way of writing documents.

    Attributes:
        roles: whether it tells questions from answers; if not, a lesson learns everything.
    """

    roles: bool

    def pieces(self, told: Conversation, end: str, lesson: bool) -> list[Piece]:
        """A document in pieces.

        Args:
            told: its messages.
            end: string of the token that ends an answer or a document.
            lesson: whether it is to learn from; if not, it ends where the model goes on.
        """
        ...


class PlainDocument:
    """Texts, pictures and clips one behind the other, whoever says them: the pretrained models, and Emu2-Gen."""

    roles = False

    def pieces(self, told: Conversation, end: str, lesson: bool) -> list[Piece]:
        """See `EmuTemplate`."""
        found = [piece for message in told.messages for piece in message.pieces]
        return [*said(found), Mark(end, True)] if lesson else found


class RoleTokens:
    """A system message, then questions and answers behind the tokens of their roles: Emu-I and Emu2-Chat.

    Args:
        image: system message where pictures are shown.
        video: where clips are.
        text: where neither is.
        lead: stands in front of a role token, but at the beginning.
        round_lead: stands in front of the second question and of later ones.
        opening: string of a special token in front of the answer to come; None for none.
    """

    roles = True

    def __init__(
        self, image: str, video: str, text: str, lead: str = " ", round_lead: str = "", opening: str | None = None
    ) -> None:
        self.image, self.video, self.text = image, video, text
        self.lead, self.round_lead, self.opening = lead, round_lead, opening

    def pieces(self, told: Conversation, end: str, lesson: bool) -> list[Piece]:
        """See `EmuTemplate`; a system message of the document stands in place of the template's, an empty one too."""
        found, messages = self._system(told), list(told.messages)
        messages = [one for one in messages if one.role != "system"]
        if not messages or messages[0].role == "assistant":
            messages = [Message("user", ()), *messages]
        last = len(messages) - 1
        for place, message in enumerate(messages):
            if message.role == "user":
                lead = self.round_lead if place else self.lead if found else ""
                found += [Words(lead), Mark(USER), Words(": "), *message.pieces]
                if place == last:
                    found += self._answering()
                continue
            opening = self._answering() if place == last else self._answering(None)
            found += [*opening, *_answer(message.pieces)]
            if lesson or place < last:
                found.append(Mark(end, True))
        return found

    def _system(self, told: Conversation) -> list[Piece]:
        own = [one for one in told.messages if one.role == "system"]
        if own:
            return [piece for piece in own[0].pieces if not isinstance(piece, Words) or piece.text]
        clip = any(told.frames) or any(Mark(VIDEO) in one.pieces for one in told.messages)
        text = self.video if clip else self.image if told.pictures else self.text
        return written(text)

    def _answering(self, opening: str | None = "") -> list[Piece]:
        mark = self.opening if opening == "" else opening
        return [Words(self.lead), Mark(ASSISTANT), Words(":"), *([Mark(mark)] if mark else [])]


def _answer(pieces: Sequence[Piece]) -> list[Piece]:
    """What is said, behind a blank if it is words."""
    words = bool(pieces) and isinstance(pieces[0], Words) and bool(pieces[0].text)
    return [*([Words(" ")] if words else []), *said(pieces)]


class FewShot:
    """Questions about pictures with their answers as examples, and the last question: base Emu2 (arXiv 2312.13286).

    Args:
        shot: around the question of an example, and of the query behind examples.
        alone: around a question without examples.
        joint: between examples.
    """

    roles = True

    def __init__(self, shot: str, alone: str, joint: str = ". ") -> None:
        self.shot, self.alone, self.joint = shot, alone, joint

    def pieces(self, told: Conversation, end: str, lesson: bool) -> list[Piece]:
        """See `EmuTemplate`; the pictures of a question stand in front of its words."""
        found: list[Piece] = []
        shots = any(one.role == "assistant" for one in told.messages[:-1])
        for place, message in enumerate(told.messages):
            if message.role == "assistant":
                found += _answer(message.pieces)
                continue
            question = "".join(piece.text for piece in message.pieces if isinstance(piece, Words)).strip()
            around = self.shot if shots else self.alone
            found += [Words(self.joint if place else ""), *(one for one in message.pieces if isinstance(one, Shown))]
            found.append(Words(around.format(question=question)))
        return [*found, Mark(end, True)] if lesson else found


def written(text: str) -> list[Piece]:
    """A template's own text in pieces: its brackets of pictures are special tokens, whoever writes the rest."""
    marks = {IMAGE_BEGIN: 0, IMAGE_END: 1}
    words = [IMAGE_BEGIN, IMAGE_END]
    return [Mark(words[one]) if isinstance(one, int) else Words(one) for one in split_special(text, marks)]


def emu2_chat(system: str, opening: str | None = None) -> RoleTokens:
    """Emu2-Chat's form with a system message."""
    return RoleTokens(system, system, system, opening=opening)


#: Name -> template. Which of a question's answers are short is a matter of the system message (arXiv 2312.13286).
TEMPLATES: dict[str, EmuTemplate] = {
    "plain": PlainDocument(),
    "emu_instruct": RoleTokens(EMU_IMAGE, EMU_VIDEO, "", round_lead=" "),
    "emu2_chat": emu2_chat(EMU2_LONG),
    "emu2_chat_short": emu2_chat(EMU2_SHORT),
    "emu2_grounded": emu2_chat(EMU2_SHORT, GROUNDING),
    "emu2_chat_hub": RoleTokens("", "", "", lead=""),
    "emu2_few_shot": FewShot(
        "based on the picture, {question} short answer:",
        "based on the picture, answer in one word or phrase. {question} short answer:",
    ),
}


def emu_template(name: str) -> EmuTemplate:
    """The template of a name.

    Raises:
        KeyError: no such template, with the nearest ones.
    """
    return TEMPLATES[require(name, sorted(TEMPLATES), "template of documents", "processor.template")]
