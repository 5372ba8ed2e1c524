"""Several sources of pairs, drawn batch by batch: in turn, or by given weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.skips import usable
from multimodal_zoo.registry import DATASETS

logger = logging.getLogger(__name__)


@DATASETS.register_module(name="source_mixture")
class SourceMixture:
    """Readers whose batches alternate, each batch from one source: EVA-CLIP's Merged-2B of LAION and COYO.

    After any number of batches each source has given its share of them as nearly as whole batches allow. Which source
    is next depends on the counts alone, so that all ranks draw from the same one and a resumed run goes on exactly.

    Args:
        sources: readers by name, of tar shards or with numbered samples.
        weights: by name, how often each source is drawn; any positive numbers. `counted` takes the numbers of samples
            that the sources know (`len`, or the counts beside shards). None: all equally often.
        samples_per_epoch: pairs of all ranks in what is called an epoch.

    Raises:
        ValueError: no source, weights that do not fit, or a source that does not know its size.
    """

    def __init__(
        self, sources: Mapping[str, Any], weights: Mapping[str, float] | str | None, samples_per_epoch: int
    ) -> None:
        if not sources:
            raise ValueError("data.train.sources is empty; name at least one reader")
        self.sources = dict(sources)
        self.samples_per_epoch = samples_per_epoch
        if isinstance(weights, str):
            weights = self._counted(weights)
        chosen = dict.fromkeys(self.sources, 1.0) if weights is None else dict(weights)
        if set(chosen) != set(self.sources) or not all(weight > 0 for weight in chosen.values()):
            raise ValueError(
                f"data.train.weights is {chosen}; it needs a positive number for each of {', '.join(self.sources)}"
            )
        total = sum(chosen.values())
        self.shares = {name: chosen[name] / total for name in self.sources}

    def _counted(self, weights: str) -> dict[str, float]:
        from multimodal_zoo.data.shard_counts import samples_of

        if weights != "counted":
            raise ValueError(f"data.train.weights is {weights!r}; give counted, null, or a number for each source")
        return {name: float(samples_of(reader, f"data.train.sources.{name}")) for name, reader in self.sources.items()}

    def choose(self, drawn: Mapping[str, int]) -> str:
        """The source that is furthest behind its share once one more batch is drawn; the first of equals.

        Args:
            drawn: batches that each source has given.
        """
        after = sum(drawn.values()) + 1
        return max(self.sources, key=lambda name: round(self.shares[name] * after - drawn[name], 9))

    def __iter__(self) -> Iterator[Document]:
        """Every usable document once, source after source."""
        for reader in self.sources.values():
            yield from usable(reader) if hasattr(reader, "__getitem__") else reader

    def report(self) -> None:
        """Log what each source skipped."""
        for name, reader in self.sources.items():
            reader.skips.report(f"data.train.sources.{name}")
