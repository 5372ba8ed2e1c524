"""Filters that compare an answer's words with its sources': copies, joins, answers to something else."""

from __future__ import annotations

from typing import Literal

from multimodal_zoo.captions.checks import Action
from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.filters.shares import check_share, falls_short
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.statistics import is_joined
from multimodal_zoo.captions.words import reading
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="copy_filter")
class CopyFilter:
    """An answer should be more than one of its sources again.

    Args:
        most: how alike an answer and a source may be: distinct content words that both have over those that either
            has. At 1 only the same ones are a copy, whatever their order, case, punctuation and stop words.
        action: what an objection does.
    """

    def __init__(self, most: float = 1.0, action: Action = "mark") -> None:
        self.most, self.action = check_share(most, "copy_filter.most"), action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to copies of the raw or of a synthetic caption."""
        found = reading(answer.text).content
        if self._copied(found, reading(row.raw).content):
            return "copy of the raw caption"
        for text in row.synthetic:
            if self._copied(found, reading(text).content):
                return "copy of a synthetic caption"
        return None

    def _copied(self, found: frozenset[str], source: frozenset[str]) -> bool:
        if self.most == 1.0 or not source:
            return found == source and bool(source)
        shared = len(found & source)
        return shared >= self.most * (len(found) + len(source) - shared)


@CAPTIONS.register_module(name="stray_filter")
class StrayFilter:
    """An answer has to be about its sources: enough of its content words must come from them.

    Args:
        least: share of the answer's distinct content words that a source has. 72 % of the published captions' are
            (10,000 samples of baaivision/CapsFusion).
        action: what an objection does.
    """

    def __init__(self, least: float = 0.4, action: Action = "retry") -> None:
        self.least, self.action = check_share(least, "stray_filter.least"), action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that are far from both sources."""
        found = reading(answer.text).content
        known = found & reading(row.raw).content
        if len(known) < self.least * len(found):
            known = known.union(*(found & reading(text).content for text in row.synthetic))
        return falls_short(known, found, self.least)


@CAPTIONS.register_module(name="joined_filter")
class JoinedFilter:
    """To put the sources one after the other is no fusion (3.1 % of the published captions).

    Args:
        action: what an objection does.
    """

    def __init__(self, action: Action = "mark") -> None:
        self.action = action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that hold the raw and a synthetic caption, word by word."""
        raw, found = reading(row.raw), reading(answer.text)
        if len(found.words) <= len(raw.words):
            return None
        return "both sources, word by word" if is_joined(raw, map(reading, row.synthetic), found) else None


@CAPTIONS.register_module(name="recall_filter")
class RecallFilter:
    """An answer has to keep something of a source.

    Args:
        source: `raw`, or `synthetic` (all of them together).
        least: share of the source's distinct content words that the answer must hold.
        fewest: distinct content words below which a source is not judged.
        action: what an objection does.

    Raises:
        ValueError: an unknown source or a share outside of 0 to 1.
    """

    def __init__(
        self, source: Literal["raw", "synthetic"], least: float, fewest: int = 2, action: Action = "mark"
    ) -> None:
        if source not in ("raw", "synthetic"):
            raise ValueError(f"fusion_filters: recall_filter.source is {source!r}; it can be raw or synthetic")
        self.source, self.least = source, check_share(least, "recall_filter.least")
        self.fewest, self.action = fewest, action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that lost their source."""
        texts = (row.raw,) if self.source == "raw" else row.synthetic
        wanted = frozenset().union(*(reading(text).content for text in texts))
        if len(wanted) < self.fewest:
            return None
        return falls_short(wanted & reading(answer.text).content, wanted, self.least)
