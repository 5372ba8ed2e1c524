"""Sources without end, and the loader of a mixture of them: each batch from one, resumable after any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any, Protocol

import torch

from multimodal_zoo.data.collate import Collate
from multimodal_zoo.data.endless_loader import EndlessLoader
from multimodal_zoo.data.loaders import PlannedBatches, planned
from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.order import Order, Plan, check_size, plan_epoch
from multimodal_zoo.data.position import Position
from multimodal_zoo.data.randomness import derive
from multimodal_zoo.data.stream_loader import BatchReader
from multimodal_zoo.data.streams import batch_seed, count_streams, count_workers
from multimodal_zoo.objectives.batch import ImageTextBatch

#: A batch, and where its source goes on behind it.
Placed = tuple[ImageTextBatch, Any]
SOURCE = 15


class Source(Protocol):
    """One source of a mixture."""

    def batches(self, state: Any) -> Iterator[Placed]:
        """Batches without end from a place on; None is the beginning."""
        ...


class StreamSource:
    """Batches of one rank from tar shards.

    Args:
        reader: the shards.
        collate: rows and batches.
        batch_size: pairs in a batch.
        seed: of all randomness.
        rank: this rank and the number of ranks.
        workers: processes; lowered to a divisor of the number of streams.
    """

    def __init__(
        self, reader: Any, collate: Collate, batch_size: int, seed: int, rank: tuple[int, int], workers: int
    ) -> None:
        self.collate, self.seed, self.rank = collate, seed, rank
        self.streams = count_streams(len(reader.shards), reader.streams, rank[1])
        used = count_workers(workers, self.streams)
        self.read = BatchReader(reader, collate, batch_size, seed, rank, self.streams, used)

    def batches(self, state: Any) -> Iterator[Placed]:
        """Batches without end, pass after pass over the shards."""
        start = {"places": [[0, 0]] * self.streams, "turn": 0, "drop": 0} if state is None else state["streams"]
        first = 0 if state is None else state["number"]
        for number, (pixels, rows, after) in enumerate(self.read(start, endless=True), start=first + 1):
            generator = torch.Generator().manual_seed(batch_seed(self.seed, 0, number, self.rank[0]))
            yield self.collate.batch(pixels, rows, generator), {"streams": after, "number": number}


class PlannedSource:
    """Batches of one rank from a reader with numbered samples.

    Args:
        reader: the samples.
        collate: rows and batches.
        order: order of an epoch's samples.
        batch_size: pairs in a batch.
        seed: of all randomness.
        rank: this rank and the number of ranks.
        workers: processes; 0 reads in this one.
        key: the configuration key of the reader, for errors.

    Raises:
        ValueError: the reader cannot fill one batch.
    """

    def __init__(
        self,
        reader: Any,
        collate: Collate,
        order: Order,
        batch_size: int,
        seed: int,
        rank: tuple[int, int],
        workers: int,
        key: str,
    ) -> None:
        check_size(len(order(reader, torch.Generator())), batch_size, rank[1])
        self.reader = reader
        self.read = PlannedBatches(reader, collate, seed, key)
        self.plan = lambda epoch: plan_epoch(reader, order, batch_size, seed, epoch, *rank)
        self.workers = workers

    def _plans(self, epoch: int, number: int) -> Iterator[Plan]:
        for later in count(epoch):
            yield from self.plan(later)[number if later == epoch else 0 :]

    def batches(self, state: Any) -> Iterator[Placed]:
        """Batches without end, epoch after epoch."""
        epoch, number = (0, 0) if state is None else (state["epoch"], state["number"])
        loader = planned(self.read, self._plans(epoch, number), self.workers)
        for (batch, skips), plan in zip(loader, self._plans(epoch, number), strict=False):
            self.reader.skips.update(skips)
            yield batch, {"epoch": plan.epoch, "number": plan.number + 1}


class MixedSource:
    """What several sources give, each time from the one that is furthest behind its share.

    Args:
        mixture: which source is next.
        sources: the sources by name.
    """

    def __init__(self, mixture: SourceMixture, sources: Mapping[str, Source]) -> None:
        self.mixture, self.sources = mixture, dict(sources)

    def batches(self, state: Any) -> Iterator[Placed]:
        """Batches without end from a place on; None is the beginning.

        Raises:
            ValueError: a place among other sources.
        """
        state = state or {"drawn": dict.fromkeys(self.sources, 0), "places": dict.fromkeys(self.sources)}
        if set(state["drawn"]) != set(self.sources):
            raise ValueError(
                f"the checkpoint was reading {', '.join(state['drawn'])}, data.train.sources has "
                f"{', '.join(self.sources)} now: resume with the same sources"
            )
        opened = {name: source.batches(state["places"][name]) for name, source in self.sources.items()}
        while True:
            name = self.mixture.choose(state["drawn"])
            batch, place = next(opened[name])
            drawn = {**state["drawn"], name: state["drawn"][name] + 1}
            state = {"drawn": drawn, "places": {**state["places"], name: place}}
            yield batch, state


def sources_of(
    readers: Mapping[str, Any],
    collates: Mapping[str, Collate],
    order: Order,
    batch_size: int,
    seed: int,
    rank: tuple[int, int],
    workers: int,
) -> dict[str, Source]:
    """The sources of some readers; each gets its own randomness and an even part of the worker processes.

    Args:
        readers: by name; `train` is the only one where there is no mixture.
        collates: rows and batches of each.
        order: order of the samples of sources with numbered ones.
        batch_size: pairs in a batch, for each rank.
        seed: of all randomness.
        rank: this rank and the number of ranks.
        workers: processes of all sources; 0 reads in this one.
    """
    each = max(1, workers // len(readers)) if workers else 0
    sources: dict[str, Source] = {}
    for number, (name, reader) in enumerate(readers.items()):
        own, collate = derive(seed, SOURCE, number), collates[name]
        if hasattr(reader, "shards"):
            sources[name] = StreamSource(reader, collate, batch_size, own, rank, each)
        else:
            key = "data.train" if name == "train" else f"data.train.sources.{name}"
            sources[name] = PlannedSource(reader, collate, order, batch_size, own, rank, each, key)
    return sources


def mixture_loader(
    mixture: SourceMixture,
    collate: Collate,
    order: Order,
    batch_size: int,
    seed: int,
    rank: tuple[int, int],
    position: Position,
    counting: Callable[[], bool],
    workers: int,
) -> EndlessLoader:
    """The loader of a mixture: each batch from the source whose turn it is.

    Args:
        mixture: the sources.
        collate: rows and batches.
        order: order of the samples of sources with numbered ones.
        batch_size: pairs in a batch, for each rank.
        seed: of all randomness.
        rank: this rank and the number of ranks.
        position: where to start.
        counting: whether the loader itself counts its batches as taken.
        workers: processes of all sources; 0 reads in this one.

    Raises:
        ValueError: an epoch below one batch.
    """
    whole = batch_size * rank[1]
    if mixture.samples_per_epoch < whole:
        raise ValueError(
            f"data.train.samples_per_epoch is {mixture.samples_per_epoch}, less than one batch of {whole} pairs; "
            "raise it or lower data.batch_size"
        )
    collates = dict.fromkeys(mixture.sources, collate)
    sources = sources_of(mixture.sources, collates, order, batch_size, seed, rank, workers)
    length = mixture.samples_per_epoch // whole
    return EndlessLoader(MixedSource(mixture, sources).batches, length, position, counting, mixture.report)
