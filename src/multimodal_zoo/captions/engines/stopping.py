"""Where answers end: strings that stop them, as all engines count them that have no tokens to look at."""

from __future__ import annotations

from collections.abc import Sequence

LAYOUTS = ("plain", "chat")
#: At which rows are drawn that are asked again (our choice): the likeliest answer was refused.
RETRY_TEMPERATURE = 0.7


def before_stop(text: str, words: Sequence[str]) -> str | None:
    """The text before the first of some strings behind its first visible character; None where there is none.

    White space in front does not count: a model may begin its line with a newline though newlines end answers.
    """
    visible = len(text) - len(text.lstrip())
    places = [place for place in (text.find(word, visible) for word in words) if place >= 0]
    return text[: min(places)] if places else None


def stops_of(stop: Sequence[str]) -> tuple[str, ...]:
    """The strings that end answers, checked.

    Raises:
        ValueError: a single text instead of a list, or an empty string.
    """
    if isinstance(stop, str) or not all(stop):
        raise ValueError(f"fusion_engine.stop is {stop!r}; it must be a list of strings, none of them empty")
    return tuple(stop)


def require_layout(layout: str) -> str:
    """The layout of prompts, checked.

    Raises:
        ValueError: another one than `LAYOUTS`.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"fusion_engine.layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    return layout
