"""How conversations about pictures are written down as one text: the templates that EVE was trained and asked with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from multimodal_zoo.catalogue import require

#: What stands for a picture in written conversations.
MARKER = "<image>"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN = VICUNA.replace("user", "human")
HELPFUL = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


class Turn(NamedTuple):
    """A question and its answer.

    Attributes:
        question: what the user says.
        pictures: numbers of the pictures that it is about.
        answer: what the assistant says; None where it is still to come.
    """

    question: str
    pictures: Sequence[int]
    answer: str | None


class Words(NamedTuple):
    """A stretch of text.

    Attributes:
        text: the words.
        learnt: whether they are what a model shall say.
    """

    text: str
    learnt: bool = False


class Mark(NamedTuple):
    """A special token.

    Attributes:
        word: its string.
        learnt: whether it is what a model shall say.
    """

    word: str
    learnt: bool = False


class Shown(NamedTuple):
    """A picture.

    Attributes:
        number: which one.
        learnt: whether it is what a model shall say (Emu).
    """

    number: int
    learnt: bool = False


Piece = Words | Mark | Shown


class Template(Protocol):
    """A way of writing conversations.

    Attributes:
        end: what stands behind an answer.
        special: whether `end` is a special token.
        stop: the string at which the published scripts cut an answer off.
    """

    end: str
    special: bool
    stop: str

    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """A conversation in pieces; it ends where an answer begins if the last turn has none."""
        ...

    def written(self, messages: Sequence[str | None]) -> str:
        """Messages of user and assistant in turn as the published code prints them; None for one that is to come."""
        ...


def asked(turn: Turn) -> list[Piece]:
    """A question with its pictures in front, each on a line of its own (published order)."""
    if not turn.pictures:
        return [Words(turn.question)]
    text = turn.question.strip()
    found: list[Piece] = []
    for place, number in enumerate(turn.pictures, start=1):
        found += [Shown(number), *([Words("\n")] if text or place < len(turn.pictures) else [])]
    return [*found, Words(text)]


def printed(pieces: Sequence[Piece] | Iterator[Piece]) -> str:
    """Pieces as one string."""
    return "".join(
        MARKER if isinstance(one, Shown) else one.text if isinstance(one, Words) else one.word for one in pieces
    )


class RoleTemplate:
    """A sentence in front, then each message behind the name of who says it (Vicuna's form, arXiv 2306.05685).

    Args:
        system: the sentence in front.
        end: what stands behind an answer.
        user: name of who asks.
        assistant: name of who answers.
        separator: what stands behind the sentence and behind a question.
        special: whether `end` is a special token.
    """

    def __init__(
        self,
        system: str,
        end: str,
        user: str = "USER",
        assistant: str = "ASSISTANT",
        separator: str = " ",
        special: bool = True,
    ) -> None:
        self.system, self.user, self.assistant, self.separator = system, user, assistant, separator
        self.end, self.stop, self.special = end, end, special

    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """See `Template`; an empty message is only its name (published)."""
        yield Words(self.system + self.separator)
        for turn in turns:
            yield from self._said(self.user, asked(turn), [Words(self.separator)])
            end: Piece = Mark(self.end, True) if self.special else Words(self.end, True)
            yield from self._said(self.assistant, [Words(turn.answer or "", True)], [end])

    @staticmethod
    def _said(name: str, message: Sequence[Piece], behind: Sequence[Piece]) -> Iterator[Piece]:
        yield Words(f"{name}:")
        if printed(message):
            learnt = isinstance(message[0], Words) and message[0].learnt
            yield from (Words(" ", learnt), *message, *behind)

    def written(self, messages: Sequence[str | None]) -> str:
        """See `Template`."""
        text = self.system + self.separator
        for number, message in enumerate(messages):
            name, behind = ((self.user, self.separator), (self.assistant, self.end))[number % 2]
            text += f"{name}: {message}{behind}" if message else f"{name}:"
        return text


class Llama2Template:
    """LLaMA 2's form of conversations (arXiv 2307.09288): questions between marks, a sentence inside the first.

    Args:
        system: the sentence.
    """

    end, special, stop = "</s>", True, "<s>"

    def __init__(self, system: str) -> None:
        self.system = system

    def _first(self) -> str:
        return f"<<SYS>>\n{self.system}\n<</SYS>>\n\n"

    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """See `Template`."""
        for number, turn in enumerate(turns):
            if number:
                yield Mark("<s>")
            yield Words("[INST] " + ("" if number else self._first()))
            yield from (*asked(turn), Words(" [/INST]"))
            if turn.answer:
                yield from (Words(f" {turn.answer} ", True), Mark(self.end, True))

    def written(self, messages: Sequence[str | None]) -> str:
        """See `Template`."""
        text = ""
        for number, message in enumerate(messages):
            if message and number % 2:
                text += f" {message} {self.end}"
            elif message:
                text += f"<s>[INST] {'' if number else self._first()}{message} [/INST]"
        return text.removeprefix("<s>")


class PlainTemplate:
    """Pictures and what is said about them, without questions: for captions.

    Args:
        strip: whether blanks and line ends around a caption are left out.
    """

    end, special, stop = "\n", False, "\n"

    def __init__(self, strip: bool) -> None:
        self.strip = strip

    def pieces(self, turns: Sequence[Turn]) -> Iterator[Piece]:
        """See `Template`; questions are left out (published)."""
        for turn in turns:
            yield from (Shown(number) for number in turn.pictures)
            if turn.answer is not None:
                yield Words((turn.answer.strip() if self.strip else turn.answer) + self.end, True)

    def written(self, messages: Sequence[str | None]) -> str:
        """See `Template`."""
        return "".join(f"{message}{self.end}" for message in messages if message)


#: Name -> template. `vicuna_v1` is that of all figures of EVE v1, `qwen2` that of v2; the first stages use the plain
#: ones (v1 keeps blanks around captions, v2 does not).
TEMPLATES: dict[str, Template] = {
    "vicuna_v1": RoleTemplate(VICUNA, "</s>"),
    "v1": RoleTemplate(VICUNA, "</s>"),
    "eve_v1": RoleTemplate(HUMAN, "</s>"),
    "eve_v0": RoleTemplate(HUMAN, "###", "Human", "Assistant", "###", special=False),
    "eve_llama_2": Llama2Template(HELPFUL),
    "qwen2": RoleTemplate(VICUNA, "<|im_end|>"),
    "llama3": RoleTemplate(VICUNA, "<|end_of_text|>"),
    "plain": PlainTemplate(strip=False),
    "plain_stripped": PlainTemplate(strip=True),
}


def template_named(name: str) -> Template:
    """The template of a name.

    Raises:
        KeyError: no such template, with the nearest ones.
    """
    return TEMPLATES[require(name, sorted(TEMPLATES), "conversation template", "processor.template")]
