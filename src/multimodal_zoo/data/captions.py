"""Caption samplers: which text of a document a training step sees."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Protocol

from multimodal_zoo.data.caption_table import texts_of
from multimodal_zoo.data.documents import Document
from multimodal_zoo.registry import DATASETS


class CaptionSampler(Protocol):
    """Chooses or composes one caption of a document."""

    def __call__(self, document: Document, random: Random) -> str:
        """One caption; `random` is seeded for this sample."""
        ...


@DATASETS.register_module(name="text_caption")
class TextCaption:
    """The document's text as it is."""

    def __call__(self, document: Document, random: Random) -> str:
        """The first text."""
        return document.text


@DATASETS.register_module(name="any_caption")
class AnyCaption:
    """One of the document's texts at random: for data sets with several captions an image (`texts` in meta)."""

    def __call__(self, document: Document, random: Random) -> str:
        """One text; the only one where there is one."""
        return random.choice(texts_of(document.meta, "texts") or [document.text])


@DATASETS.register_module(name="alias_caption")
class AliasCaption:
    """Another name of the same thing (`aliases` in meta).

    Args:
        otherwise: what documents without aliases get; None: their text.
    """

    def __init__(self, otherwise: CaptionSampler | None = None) -> None:
        self.otherwise = otherwise

    def __call__(self, document: Document, random: Random) -> str:
        """One alias, or what stands in for it."""
        if aliases := texts_of(document.meta, "aliases"):
            return random.choice(aliases)
        return document.text if self.otherwise is None else self.otherwise(document, random)


def _draw(document: Document, random: Random, fewest: int, most: int) -> list[str]:
    keywords = texts_of(document.meta, "keywords")
    return random.sample(keywords, min(len(keywords), random.randint(fewest, most)))


def _check_counts(fewest: int, most: int) -> None:
    if not 0 <= fewest <= most:
        raise ValueError(f"data.captions: fewest is {fewest} and most {most}; expected 0 <= fewest <= most")


@DATASETS.register_module(name="text_and_keywords")
class TextAndKeywords:
    """The text followed by some keywords (`keywords` in meta), in random order.

    Args:
        fewest: smallest number of keywords.
        most: largest number of keywords.
        joiner: between the pieces.

    Raises:
        ValueError: numbers that run backwards.
    """

    def __init__(self, fewest: int, most: int, joiner: str = " ") -> None:
        _check_counts(fewest, most)
        self.fewest, self.most, self.joiner = fewest, most, joiner

    def __call__(self, document: Document, random: Random) -> str:
        """Text and keywords."""
        return self.joiner.join([document.text, *_draw(document, random, self.fewest, self.most)])


@DATASETS.register_module(name="keywords_caption")
class KeywordsCaption:
    """Keywords alone, in random order: much like raw alt texts. The text itself where there are none.

    Args:
        fewest: smallest number of keywords.
        most: largest number of keywords.
        joiner: between the keywords.

    Raises:
        ValueError: numbers that run backwards.
    """

    def __init__(self, fewest: int, most: int, joiner: str = " ") -> None:
        _check_counts(fewest, most)
        self.fewest, self.most, self.joiner = fewest, most, joiner

    def __call__(self, document: Document, random: Random) -> str:
        """Keywords."""
        return self.joiner.join(_draw(document, random, self.fewest, self.most)) or document.text


@DATASETS.register_module(name="template_caption")
class TemplateCaption:
    """A sentence around the text and the facts in meta.

    Args:
        templates: e.g. "an emoji of {text}", "a picture from {group_name}"; one is drawn.
        text: what `{text}` is; None: the document's text.

    Raises:
        ValueError: no template.
    """

    def __init__(self, templates: Sequence[str], text: CaptionSampler | None = None) -> None:
        if not templates:
            raise ValueError("data.captions.templates is empty; give at least one")
        self.templates = list(templates)
        self.text = text

    def __call__(self, document: Document, random: Random) -> str:
        """One template, filled.

        Raises:
            ValueError: a template names a fact that the document does not have, or is no template.
        """
        template = random.choice(self.templates)
        text = document.text if self.text is None else self.text(document, random)
        try:
            return template.format(**{**document.meta, "text": text})
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            facts = ", ".join(["text", *document.meta])
            raise ValueError(f"data.captions.templates: {template!r} needs {error}; documents have {facts}") from None


@DATASETS.register_module(name="caption_mixture")
class CaptionMixture:
    """One of several samplers, drawn by weight for each sample.

    Args:
        parts: the samplers.
        weights: as many non-negative numbers; only their ratios matter.

    Raises:
        ValueError: no part, or weights that do not fit.
    """

    def __init__(self, parts: Sequence[CaptionSampler], weights: Sequence[float]) -> None:
        if not parts or len(parts) != len(weights) or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(
                f"data.captions has {len(parts)} parts and weights {list(weights)}; it needs one weight of at least 0 "
                "for each part, not all 0"
            )
        self.parts = list(parts)
        self.weights = list(weights)

    def __call__(self, document: Document, random: Random) -> str:
        """What the drawn sampler gives."""
        return random.choices(self.parts, self.weights)[0](document, random)
