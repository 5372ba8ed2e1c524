"""Tensor names with placeholders: `{}` is a number, `*` is any rest."""

from __future__ import annotations

import re
from functools import cache, cached_property


class Pattern:
    """A name with placeholders.

    Args:
        text: e.g. `blocks.{}.norm_1.*`.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def holes(self) -> tuple[str, ...]:
        """The placeholders in order."""
        return tuple(re.findall(r"\{\}|\*", self.text))

    @cached_property
    def head(self) -> str:
        """What every name that fits begins with: the text before the first placeholder."""
        return re.split(r"\{\}|\*", self.text, maxsplit=1)[0]

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        inner = {"{}": r"(\d+)", "*": "(.+)"}
        return re.compile("".join(inner.get(p, re.escape(p)) for p in re.split(r"(\{\}|\*)", self.text)))

    def match(self, name: str) -> tuple[str, ...] | None:
        """What the placeholders stand for in `name`, or None if it does not fit."""
        if not name.startswith(self.head):
            return None
        found = self._expression.fullmatch(name)
        return found.groups() if found else None

    def fill(self, values: tuple[str, ...]) -> str:
        """The name with its placeholders replaced, in order."""
        pieces = re.split(r"\{\}|\*", self.text)
        return "".join(a + b for a, b in zip(pieces, (*values, ""), strict=True))


@cache
def pattern(text: str) -> Pattern:
    """The pattern of a text, made once: all tables together have more than `re` remembers."""
    return Pattern(text)
