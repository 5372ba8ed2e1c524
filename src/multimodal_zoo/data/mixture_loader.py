"""Loader of a mixture of sources: each batch from one of them, resumable after any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from multimodal_zoo.data.collate import Collate
from multimodal_zoo.data.loaders import PlannedBatches
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
        loader = DataLoader(
            self.read,
            sampler=self._plans(epoch, number),  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_same,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
        )
        for (batch, skips), plan in zip(loader, self._plans(epoch, number), strict=False):
            self.reader.skips.update(skips)
            yield batch, {"epoch": plan.epoch, "number": plan.number + 1}


def _same(batch: Any) -> Any:
    return batch


class MixtureLoader:
    """Batches of one rank, each from the source whose turn it is; the sources go on from epoch to epoch.

    Args:
        mixture: which source is next.
        sources: the sources by name.
        global_batch: pairs in a batch of all ranks.
        position: where to start; the loader announces what follows each batch there.
        counting: whether this loader itself counts its batches as taken (no trainer does).

    Raises:
        ValueError: an epoch below one batch.
    """

    def __init__(
        self,
        mixture: SourceMixture,
        sources: dict[str, Source],
        global_batch: int,
        position: Position,
        counting: Callable[[], bool],
    ) -> None:
        self.mixture, self.sources = mixture, sources
        self.position, self.counting = position, counting
        self.length = mixture.samples_per_epoch // global_batch
        if not self.length:
            raise ValueError(
                f"data.train.samples_per_epoch is {mixture.samples_per_epoch}, less than one batch of {global_batch} "
                "pairs; raise it or lower data.batch_size"
            )
        self._open: dict[str, Iterator[Placed]] = {}
        self._state: dict[str, Any] = {}
        self._at = (-1, -1)

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.length

    def __iter__(self) -> Iterator[ImageTextBatch]:
        epoch, number = self.position.begin()
        self.position.length = self.length
        if self._at != (epoch, number):
            self._start()
        # A trainer gets a whole epoch's worth from wherever it starts, and stops by itself.
        for _ in range(self.length - (number if self.counting() else 0)):
            drawn, places = self._state["drawn"], self._state["places"]
            name = self.mixture.choose(drawn)
            batch, place = next(self._open[name])
            self._state = {"drawn": {**drawn, name: drawn[name] + 1}, "places": {**places, name: place}}
            number += 1
            self.position.announce(epoch, number, self._state)
            if self.counting():
                self.position.take()
            if number == self.length:
                epoch, number = epoch + 1, 0
            self._at = epoch, number
            yield batch
        self.mixture.report()

    def _start(self) -> None:
        self.close()
        fresh: dict[str, Any] = {"drawn": dict.fromkeys(self.sources, 0), "places": dict.fromkeys(self.sources)}
        self._state = self.position.streams or fresh
        if set(self._state["drawn"]) != set(self.sources):
            raise ValueError(
                f"the checkpoint was reading {', '.join(self._state['drawn'])}, data.train.sources has "
                f"{', '.join(self.sources)} now: resume with the same sources"
            )
        self._open = {name: source.batches(self._state["places"][name]) for name, source in self.sources.items()}

    def close(self) -> None:
        """Stop the worker processes; the next iteration starts again at the position."""
        for opened in self._open.values():
            opened.close()  # type: ignore[attr-defined]
        self._open, self._at = {}, (-1, -1)


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
) -> MixtureLoader:
    """The loader of a mixture; each source gets its own randomness and an even part of the worker processes.

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
    """
    each = max(1, workers // len(mixture.sources)) if workers else 0
    sources: dict[str, Source] = {}
    for number, (name, reader) in enumerate(mixture.sources.items()):
        own = derive(seed, SOURCE, number)
        if hasattr(reader, "shards"):
            sources[name] = StreamSource(reader, collate, batch_size, own, rank, each)
        else:
            key = f"data.train.sources.{name}"
            sources[name] = PlannedSource(reader, collate, order, batch_size, own, rank, each, key)
    return MixtureLoader(mixture, sources, batch_size * rank[1], position, counting)
