"""Pages of pictures and names, made of single pairs: for models that read examples in front of a task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from random import Random
from typing import Any

from multimodal_zoo.data.documents import Document, Image, Segment, Text
from multimodal_zoo.data.limits import probability
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="pair_pages")
class PairPages:
    """A pair among others of its data set, one behind the other: `picture name picture name`, or each name first.

    Pairs of one page may belong together, as those of real pages do, and the last may be another picture of a thing
    that the page has named already, so that looking it up there helps.

    Args:
        dataset: where the other pairs are from: documents with numbers, of one picture and one text.
        pairs: fewest and most pairs of a page.
        same: metadata that the pairs of half of all pages have in common (`subgroup`); null draws from all.
        again: probability that the last pair of a page is of something that stands in it already (`concept` in meta).
        first: probability that pictures stand in front of their names.
        ending: put behind each name.
        special: whether strings of special tokens in texts become these tokens.

    Raises:
        ValueError: no pairs, or no probability.
    """

    def __init__(
        self,
        dataset: Any,
        pairs: Sequence[int] = (1, 5),
        same: str | None = None,
        again: float = 0.0,
        first: float = 0.5,
        ending: str = "",
        special: bool = False,
    ) -> None:
        if len(pairs) != 2 or not 1 <= pairs[0] <= pairs[1]:
            raise ValueError(f"data.layout.pairs is {list(pairs)}; expected the fewest (at least 1) and the most")
        for name, value in (("again", again), ("first", first)):
            probability(value, f"data.layout.{name}")
        self.dataset, self.pairs, self.same = dataset, tuple(pairs), same
        self.again, self.first, self.ending, self.special = again, first, ending, special

    def __call__(self, document: Document, random: Random) -> Document:
        """The page that begins with this pair, unless an earlier place is drawn for it."""
        count = random.randint(*self.pairs)
        shown = [document, *self._others(document, count - 1, random)]
        if count > 1 and random.random() < self.again:
            shown[-1] = self._again(random.choice(shown[:-1]), shown[-1], random)
        picture_first = random.random() < self.first
        segments: list[Segment] = []
        for one in shown:
            pair: list[Segment] = [Image(one.image), Text(one.text + self.ending)]
            segments += pair if picture_first else reversed(pair)
        return Document(segments, document.meta)

    def _others(self, document: Document, count: int, random: Random) -> Iterator[Document]:
        value = None if self.same is None or random.random() < 0.5 else document.meta.get(self.same)
        alike = [] if value is None else self._numbers.get((self.same, value), [])
        pool = alike or range(len(self.dataset))  # a document of another data set may be like none of this one
        yield from (self.dataset[random.choice(pool)] for _ in range(count))

    def _again(self, seen: Document, otherwise: Document, random: Random) -> Document:
        """Another picture of the same thing; where there is none, what stood there."""
        concept = seen.meta.get("concept")
        pool = [] if concept is None else self._numbers.get(("concept", concept), [])
        others = [number for number in pool if self._facts[number]["key"] != seen.key]
        return self.dataset[random.choice(others)] if others else otherwise

    @cached_property
    def _facts(self) -> dict[int, dict[str | None, Any]]:
        """Key, concept and what pages have in common, of every usable pair by its number."""
        found: dict[int, dict[str | None, Any]] = {}
        for number in range(len(self.dataset)):
            with suppress(UnusableError):
                document = self.dataset[number]
                facts = {name: document.meta.get(name) for name in {self.same, "concept"} - {None}}
                found[number] = {**facts, "key": document.key}
        return found

    @cached_property
    def _numbers(self) -> dict[tuple[str | None, Any], list[int]]:
        found: dict[tuple[str | None, Any], list[int]] = defaultdict(list)
        for number, facts in self._facts.items():
            for name in {self.same, "concept"} - {None}:
                found[name, facts[name]].append(number)
        return found
