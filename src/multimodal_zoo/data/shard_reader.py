"""What readers of tar shards share: the shards, how many are read at a time, and every document once in their order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.shards import RawSample, expand, read_shard
from multimodal_zoo.data.skips import Skips, made_of


class ShardReader(ABC):
    """A stream of documents from tar shards, local or remote; what cannot be used is counted in `skips`.

    Args:
        name: of the part, for messages.
        sources: shard patterns; see `shards.expand`.
        streams: shards that each rank reads at a time. It decides the order of samples, the number of workers does
            not; workers are a divisor of it. Lowered where there are fewer shards for a rank.
        shuffle: samples that each stream holds in memory, encoded, to draw from.
        samples_per_epoch: samples of all ranks in what is called an epoch; None is one pass over all shards.

    Raises:
        FileNotFoundError: a local pattern that matches nothing.
        ValueError: fewer than one stream.
    """

    def __init__(
        self, name: str, sources: str | Sequence[str], streams: int, shuffle: int, samples_per_epoch: int | None
    ) -> None:
        if streams < 1 or shuffle < 1:
            raise ValueError(f"data.train.streams is {streams} and shuffle {shuffle}; both must be at least 1")
        self.name = name
        self.shards = expand(sources, "data.train.sources")
        self.streams, self.shuffle, self.samples_per_epoch = streams, shuffle, samples_per_epoch
        self.skips = Skips()

    def raw(self, shard: str, skips: Skips) -> Iterator[RawSample]:
        """Encoded samples of one shard."""
        return read_shard(shard, skips)

    @abstractmethod
    def decode(self, sample: RawSample) -> Document:
        """The document of an encoded sample.

        Raises:
            UnusableError: what makes it one is missing or damaged.
        """

    def check(self, document: Document) -> None:
        """Find out whether what `decode` left encoded can be read.

        Raises:
            UnusableError: it cannot.
        """
        del document

    def __iter__(self) -> Iterator[Document]:
        """Every usable document once, in the order of the shards.

        Raises:
            NoUsableSamplesError: there is none.
        """
        samples = (sample for shard in self.shards for sample in self.raw(shard, self.skips))
        return made_of(samples, self._checked, self.skips, self.name, f"its sources, {self.shards[0]} first")

    def _checked(self, sample: RawSample) -> Document:
        document = self.decode(sample)
        self.check(document)
        return document
