"""A filter for answers in another language than their sources."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from multimodal_zoo.captions.checks import Action
from multimodal_zoo.captions.engine import Answer
from multimodal_zoo.captions.filters.shares import check_share
from multimodal_zoo.captions.rows import CaptionRow
from multimodal_zoo.captions.words import STOP_WORDS, reading
from multimodal_zoo.packages import needed
from multimodal_zoo.registry import CAPTIONS

#: Words that hardly any language but English has; with `STOPS` stop words they tell it without a model.
ENGLISH = frozenset(("the", "and", "with", "this", "that", "from", "are", "there", "their", "these", "those"))
STOPS = 3


@CAPTIONS.register_module(name="language_filter")
class LanguageFilter:
    """An answer should be in a language of its sources, or in a wanted one.

    Languages are told by py3langid (97 of them, by n-grams of letters), which is loaded when the first text needs it.
    What is not clear is not judged: short texts, texts that it is not sure of, and answers whose words mostly stand in
    the sources. Keywords and names have no language.

    Args:
        languages: codes of ISO 639-1 that answers may have; None takes the sources' languages.
        shortest: characters below which a text is not judged.
        sure: probability that it needs for an answer and for a source.
        familiar: share of the answer's distinct words, from which on it is not judged if the sources have them.
        action: what an objection does.

    Raises:
        ModuleNotFoundError: at the first text, if py3langid is not installed.
    """

    def __init__(
        self,
        languages: Sequence[str] | None = None,
        shortest: int = 30,
        sure: float = 0.9,
        familiar: float = 0.5,
        action: Action = "mark",
    ) -> None:
        self.languages = None if languages is None else frozenset(languages)
        self.shortest, self.action = shortest, action
        self.sure = check_share(sure, "language_filter.sure")
        self.familiar = check_share(familiar, "language_filter.familiar")

    def __call__(self, row: CaptionRow, answer: Answer) -> str | None:
        """Objects to answers in a language of their own."""
        expected = self.languages
        if expected is None:
            found = reading(answer.text).vocabulary
            known = found & reading(row.raw).vocabulary
            enough = self.familiar * len(found)
            if len(known) >= enough:
                return None
            if len(known.union(*(found & reading(text).vocabulary for text in row.synthetic))) >= enough:
                return None
            if is_english(answer.text) and any(is_english(text) for text in (*row.synthetic, row.raw)):
                return None
        spoken = self._language(answer.text)
        if spoken is None:
            return None
        if expected is None:
            told = (self._language(text) for text in (row.raw, *row.synthetic))
            expected = frozenset(language for language in told if language is not None)
        if not expected or spoken in expected:
            return None
        return f"{spoken}, not {' or '.join(sorted(expected))}"

    def _language(self, text: str) -> str | None:
        if len(text) < self.shortest:
            return None
        language, probability = _identifier().classify(text)
        return language if probability >= self.sure else None


def is_english(text: str) -> bool:
    """Whether a text is English beyond doubt: a fiftieth of the model's time, for most captions."""
    found = reading(text).vocabulary
    return not ENGLISH.isdisjoint(found) and len(found & STOP_WORDS) >= STOPS


@lru_cache(maxsize=1)
def _identifier() -> Any:
    langid = needed(
        "py3langid.langid", "fusion_filters.language", "captions", "leave the filter out: fusion_filters.language=null"
    )
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
