"""Loader of tar shards: batches cut from the chunks of all streams, resumable after any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from multimodal_zoo.data.collate import Collate, Row
from multimodal_zoo.data.position import Position
from multimodal_zoo.data.streams import (
    Chunk,
    Place,
    StreamChunks,
    StreamReader,
    batch_seed,
    count_streams,
    count_workers,
    unchanged,
)
from multimodal_zoo.objectives.batch import ImageTextBatch


class Cut:
    """Cuts batches out of chunks and knows, after each, where every stream would have to start again.

    Args:
        state: where the streams start: `places`, the stream whose `turn` it is, and the rows to `drop` from it.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.places = [Place(*place) for place in state["places"]]
        self.turn: int = state["turn"]
        self.used: int = state["drop"]
        self.chunks: list[Chunk] = []
        self.held = -self.used

    def put(self, chunk: Chunk) -> None:
        """Take a chunk, in the order of the streams."""
        self.chunks.append(chunk)
        self.held += len(chunk.rows)

    def batch(self, size: int) -> tuple[Tensor, list[Row]]:
        """The next `size` rows; there must be as many."""
        pixels: list[Tensor] = []
        rows: list[Row] = []
        while len(rows) < size:
            chunk = self.chunks[0]
            end = min(len(chunk.rows), self.used + size - len(rows))
            if chunk.pixels is not None:
                pixels.append(chunk.pixels[self.used : end])
                rows += chunk.rows[self.used : end]
            self.used, self.turn = end, chunk.stream
            if end == len(chunk.rows):
                self.places[chunk.stream] = chunk.after
                self.turn = (chunk.stream + 1) % len(self.places)
                self.used = 0
                del self.chunks[0]
        self.held -= size
        return torch.cat(pixels), rows

    def state(self) -> dict[str, Any]:
        """Where to start again."""
        return {"places": [list(place) for place in self.places], "turn": self.turn, "drop": self.used}


#: Pixels and rows of one batch, and the streams' state behind it.
CutBatch = tuple[Tensor, list[Row], dict[str, Any]]


class BatchReader:
    """Reads shards and cuts batches.

    It is an object of its own so that the loader, which keeps a reading generator, is not part of a reference cycle: in
    a cycle the worker processes' queues would be torn down before the workers are told to stop, which takes seconds.

    Args:
        reader: the shards.
        collate: makes rows.
        batch_size: pairs in a batch.
        seed: of all randomness.
        rank: this rank and the number of ranks.
        streams: how many.
        workers: processes, a divisor of `streams`.
    """

    def __init__(
        self,
        reader: StreamReader,
        collate: Collate,
        batch_size: int,
        seed: int,
        rank: tuple[int, int],
        streams: int,
        workers: int,
    ) -> None:
        self.reader, self.collate = reader, collate
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self.streams, self.workers = streams, workers

    def __call__(self, start: dict[str, Any], endless: bool) -> Iterator[CutBatch]:
        """Batches from a place on, each with the place behind it.

        Raises:
            NoUsableSamplesError: nothing was usable, or is any more.
            ValueError: less than a batch was, or the place belongs to another number of streams.
        """
        if len(start["places"]) != self.streams:
            raise ValueError(
                f"the checkpoint was reading {len(start['places'])} streams, data.train.streams gives {self.streams} "
                "now: resume with the same shards, streams and number of ranks"
            )
        cut = Cut(start)
        chunks = StreamChunks(self.reader, self.collate, self.seed, self.rank, cut.places, cut.turn, endless)
        loader = DataLoader(chunks, batch_size=None, collate_fn=unchanged, num_workers=self.workers)
        usable = empty = 0
        fresh = not any(place.drawn for place in cut.places)
        for chunk in loader:
            if chunk is None:
                continue
            self.reader.skips.update(chunk.skips)
            usable, empty = usable + len(chunk.rows), 0 if chunk.rows else empty + 1
            if empty > 2 * self.streams:
                break
            cut.put(chunk)
            while cut.held >= self.batch_size:
                pixels, rows = cut.batch(self.batch_size)
                yield pixels, rows, cut.state()
        if endless or (fresh and not usable):  # endless streams end only where pass after pass gives nothing
            raise self.reader.skips.nothing_usable(type(self.reader).__name__, "data.train.sources")
        if fresh and usable < self.batch_size:
            raise ValueError(
                f"data.batch_size is {self.batch_size}, but the shards hold {usable} usable pairs "
                f"({self.reader.skips}); set data.batch_size to at most {usable}"
            )


class StreamLoader:
    """Batches of one rank, read from tar shards.

    With `samples_per_epoch` the streams go on from epoch to epoch; without, an epoch is one pass, its last incomplete
    batch dropped.

    Args:
        reader: the shards.
        collate: rows and batches.
        batch_size: pairs in a batch.
        seed: of all randomness.
        rank: this rank and the number of ranks.
        position: where to start; the loader announces what follows each batch there.
        counting: whether this loader itself counts its batches as taken (no trainer does).
        workers: processes; lowered to a divisor of the number of streams.

    Raises:
        ValueError: fewer shards than ranks; several ranks without `samples_per_epoch`; an epoch below one batch.
    """

    def __init__(
        self,
        reader: StreamReader,
        collate: Collate,
        batch_size: int,
        seed: int,
        rank: tuple[int, int],
        position: Position,
        counting: Callable[[], bool],
        workers: int,
    ) -> None:
        self.reader, self.collate = reader, collate
        self.batch_size, self.seed, self.rank = batch_size, seed, rank
        self.position, self.counting = position, counting
        streams = count_streams(len(reader.shards), reader.streams, rank[1])
        self.read = BatchReader(reader, collate, batch_size, seed, rank, streams, count_workers(workers, streams))
        self.length = self._length()
        self._endless: Iterator[CutBatch] | None = None
        self._at = (-1, -1)

    def _length(self) -> int | None:
        samples = self.reader.samples_per_epoch
        if samples is None:
            if self.rank[1] > 1:
                raise ValueError(
                    f"data.train.samples_per_epoch is null with {self.rank[1]} ranks, whose shards differ in length; "
                    "set it to the number of pairs in all shards"
                )
            return None
        if samples < self.batch_size * self.rank[1]:
            raise ValueError(
                f"data.batch_size is {self.batch_size} for each of {self.rank[1]} rank(s), but "
                f"data.train.samples_per_epoch is {samples}; lower the first or raise the second"
            )
        return samples // (self.batch_size * self.rank[1])

    def __len__(self) -> int:
        """Batches in a whole epoch.

        Raises:
            TypeError: unknown, since an epoch is one pass (`samples_per_epoch` is null).
        """
        if self.length is None:
            raise TypeError("an epoch of one pass over shards has no known length")
        return self.length

    def __iter__(self) -> Iterator[ImageTextBatch]:
        epoch, number = self.position.begin()
        if self.length is None:
            yield from self._pass(epoch, number)
        else:
            # A trainer gets a whole epoch's worth from wherever it starts, and stops by itself.
            yield from self._cut(epoch, number, self.length - (number if self.counting() else 0))
        self.reader.skips.report("data.train")

    def close(self) -> None:
        """Stop the worker processes; the next iteration starts again at the position."""
        if self._endless is not None:
            self._endless.close()  # type: ignore[attr-defined]
            self._endless = None

    def _pass(self, epoch: int, number: int) -> Iterator[ImageTextBatch]:
        self.position.length = None
        start = self.position.streams if number and self.position.streams else self._start(epoch)
        for pixels, rows, state in self.read(start, endless=False):
            number += 1
            yield self._give(epoch, number, pixels, rows, state)
        self.position.finish(number)

    def _cut(self, epoch: int, number: int, count: int) -> Iterator[ImageTextBatch]:
        self.position.length = self.length
        if self._endless is None or self._at != (epoch, number):
            self._endless = self.read(self.position.streams or self._start(0), endless=True)
        for pixels, rows, state in islice(self._endless, count):
            number += 1
            batch = self._give(epoch, number, pixels, rows, state)
            if number == self.length:
                epoch, number = epoch + 1, 0
            self._at = epoch, number
            yield batch

    def _give(self, epoch: int, number: int, pixels: Tensor, rows: list[Row], state: dict[str, Any]) -> ImageTextBatch:
        self.position.announce(epoch, number, state)
        if self.counting():
            self.position.take()
        generator = torch.Generator().manual_seed(batch_seed(self.seed, epoch, number, self.rank[0]))
        return self.collate.batch(pixels, rows, generator)

    def _start(self, turn: int) -> dict[str, Any]:
        return {"places": [[turn, 0]] * self.read.streams, "turn": 0, "drop": 0}
