"""Filters that look at an answer alone: blank, too short or long, cut off, repeating itself."""

from __future__ import annotations

from collections import Counter

from multimodal_zoo.captions.checks import Action
from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.words import ngrams, reading
from multimodal_zoo.registry import CAPTIONS


@CAPTIONS.register_module(name="empty_filter")
class EmptyFilter:
    """An answer needs a word.

    Args:
        action: what an objection does.
    """

    def __init__(self, action: Action = "retry") -> None:
        self.action = action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers without a letter or digit."""
        return None if reading(answer.text).words else "no word"


@CAPTIONS.register_module(name="length_filter")
class LengthFilter:
    """A caption is neither a word nor a page.

    Args:
        fewest: words that an answer needs.
        most: words that it may have; None for any number.
        action: what an objection does.

    Raises:
        ValueError: `most` is below `fewest`.
    """

    def __init__(self, fewest: int = 1, most: int | None = None, action: Action = "retry") -> None:
        if most is not None and most < fewest:
            raise ValueError(f"fusion_filters: length_filter takes most {most} words and fewest {fewest}")
        self.fewest, self.most, self.action = fewest, most, action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers of too few or too many words."""
        count = len(reading(answer.text).words)
        if count < self.fewest or (self.most is not None and count > self.most):
            return f"{count} words"
        return None


@CAPTIONS.register_module(name="cut_filter")
class CutFilter:
    """An answer that the limit of new tokens ended must at least end like a sentence.

    Args:
        ended: whether answers that the model ended by itself need closing punctuation as well.
        action: what an objection does.
    """

    def __init__(self, ended: bool = False, action: Action = "retry") -> None:
        self.ended, self.action = ended, action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers that stop in the middle."""
        if (self.ended or not answer.ended) and not reading(answer.text).closed:
            return "no closing punctuation"
        return None


@CAPTIONS.register_module(name="repetition_filter")
class RepetitionFilter:
    """Small models fall into loops; a run of words that comes again and again shows it.

    A run that a source repeats as often is no loop of the model's.

    Args:
        size: words of a run.
        most: how often a run may occur.
        action: what an objection does.

    Raises:
        ValueError: `size` or `most` is below 1.
    """

    def __init__(self, size: int = 3, most: int = 2, action: Action = "retry") -> None:
        if size < 1 or most < 1:
            raise ValueError(f"fusion_filters: repetition_filter has size {size} and most {most}; both are at least 1")
        self.size, self.most, self.action = size, most, action

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers with a run of words that occurs too often."""
        found = reading(answer.text)
        if len(found.words) - len(found.vocabulary) < self.size * self.most:  # each repetition repeats `size` words
            return None
        return self._closer(row, found.words)

    def _closer(self, row: CaptionRow, answer: tuple[str, ...]) -> str | None:
        for run, count in Counter(ngrams(answer, self.size)).items():
            if count > self.most and not any(
                ngrams(reading(text).words, self.size).count(run) >= count for text in (row.raw, *row.synthetic)
            ):
                return f"{' '.join(run)!r} {count} times"
        return None
