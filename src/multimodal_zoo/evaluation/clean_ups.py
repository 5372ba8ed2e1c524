"""What of a model's words counts as its answer, as the published evaluations of Emu cut them (baaivision/Emu, Emu1)."""

from __future__ import annotations

from collections.abc import Callable

#: What begins many answers without being part of them, in the order in which each goes once.
LEADS = ("it is ", "it's ", "a ", "an ", "the ")
#: What VizWiz wants to hear of a question that its picture does not answer.
UNANSWERABLE = "unanswerable"


def _cut(text: str, *ends: str) -> str:
    """A text up to the first of each end, one end after another."""
    for end in ends:
        text = text.split(end, 1)[0]
    return text


def as_written(text: str) -> str:
    """The whole text."""
    return text


def short_answer(text: str) -> str:
    """An answer of a few words: its first part, in lower case, without what begins sentences.

    Args:
        text: what the model wrote.
    """
    text = _cut(text, "\n", ". ", '"', ", ").lower().removesuffix(".")
    for lead in LEADS:
        text = text.removeprefix(lead)
    return text


def short_caption(text: str) -> str:
    """A description of one sentence, in lower case.

    Args:
        text: what the model wrote.
    """
    return _cut(text, "\n", ". ").removesuffix(".").lower()


def vizwiz_answer(text: str, known: str) -> str:
    """The answer, or that there is none.

    Args:
        text: what the model answered.
        known: what it said to whether the answer is known; only a plain `no.` is a no.
    """
    return UNANSWERABLE if known == "no." else short_answer(text)


#: Name of a way of cutting -> what does it.
CLEAN_UPS: dict[str, Callable[[str], str]] = {
    "none": as_written,
    "short_answer": short_answer,
    "caption": short_caption,
}


def clean_up(name: str) -> Callable[[str], str]:
    """The way of cutting of a name.

    Raises:
        ValueError: no such way.
    """
    if name not in CLEAN_UPS:
        raise ValueError(f"asking.clean_up is {name!r}; expected one of {', '.join(CLEAN_UPS)}")
    return CLEAN_UPS[name]
