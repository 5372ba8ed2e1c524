"""Filters for facts: names and numbers of the raw caption that must stay, numbers that nobody gave."""

from __future__ import annotations

import re

from multimodal_zoo.captions.checks import Action
from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.filters.shares import check_share, falls_short
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.words import Reading, numbers, reading
from multimodal_zoo.registry import CAPTIONS

#: A mark between thousands: 1,000 and 1 000 and 1.000 and 1'000 are 1000.
_GROUPED = re.compile(r"(?<=\d)[,.'\u2019\u00a0\u202f ](?=\d{3}(?!\d))")
_SPELLED = dict(
    zip(
        map(str, range(13)),
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
        strict=True,
    )
)


@CAPTIONS.register_module(name="names_filter")
class NamesFilter:
    """Names carry the knowledge that synthetic captions lack: the raw caption's capitalised words must stay.

    Args:
        least: share of the raw caption's distinct capitalised words that the answer must hold, in any case.
        fewest: capitalised words below which a raw caption is not judged.
        action: what an objection does.
    """

    def __init__(self, least: float = 0.5, fewest: int = 1, action: Action = "mark") -> None:
        self.least, self.fewest, self.action = check_share(least, "names_filter.least"), fewest, action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that drop names."""
        wanted = reading(row.raw).names
        if len(wanted) < self.fewest:
            return None
        return falls_short(wanted & reading(answer.text).vocabulary, wanted, self.least)


@CAPTIONS.register_module(name="numbers_filter")
class NumbersFilter:
    """Years, models and counts must stay.

    A number may be written otherwise: 1,000 for 1000, and up to twelve in English words.

    Args:
        least: share of the raw caption's distinct numbers that the answer must hold.
        longest: digits of the longest number that counts; longer ones in web captions are mostly file numbers.
        action: what an objection does.
    """

    def __init__(self, least: float = 1.0, longest: int | None = None, action: Action = "mark") -> None:
        self.least, self.longest, self.action = check_share(least, "numbers_filter.least"), longest, action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that drop numbers."""
        raw = reading(row.raw)
        if not raw.numbers:
            return None
        found = reading(answer.text)
        if raw.numbers <= found.numbers:
            return None
        wanted, held = ungrouped(raw), found.numbers | ungrouped(found)
        if self.longest is not None:
            wanted = frozenset(number for number in wanted if len(number) <= self.longest)
        kept = {number for number in wanted if number in held or _SPELLED.get(number) in found.vocabulary}
        return falls_short(kept, wanted, self.least)


@CAPTIONS.register_module(name="invented_filter")
class InventedFilter:
    """A number that no source gives is made up.

    Args:
        action: what an objection does.
    """

    def __init__(self, action: Action = "retry") -> None:
        self.action = action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers with a number of their own."""
        found = reading(answer.text)
        if not found.numbers or found.numbers <= reading(row.raw).numbers:
            return None
        given: frozenset[str] = frozenset()
        told: frozenset[str] = frozenset()
        for source in map(reading, (row.raw, *row.synthetic)):
            given |= source.numbers | ungrouped(source)
            told |= source.vocabulary
        invented = [number for number in ungrouped(found) - given if _SPELLED.get(number) not in told]
        return ", ".join(sorted(invented)) if invented else None


def ungrouped(text: Reading) -> frozenset[str]:
    """The distinct numbers of a text, those in groups of thousands as one: `1,000 of 3.50` has 1000, 3 and 50."""
    if not any(len(number) == 3 for number in text.numbers):  # what follows a mark between thousands
        return text.numbers
    return frozenset(numbers(_GROUPED.sub("", text.text)))
