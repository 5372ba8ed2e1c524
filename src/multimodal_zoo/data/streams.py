"""Reading tar shards in several streams, in an order that no number of worker processes changes.

Each pass over the data shuffles all shards by (seed, pass), deals them to ranks and, in each rank, to a fixed number of
streams. A stream reads its shards one after the other through a shuffle buffer and hands out chunks of decoded rows;
chunks are taken from the streams in turn. Workers only decide which process reads a stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from multimodal_zoo.data.collate import Collate, Row, stack
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.randomness import derive, python_random
from multimodal_zoo.data.shards import RawSample
from multimodal_zoo.data.skips import Skips, UnusableError

#: Rows in a chunk: small enough to resume by decoding little twice, large enough to cost little in messages.
CHUNK = 32
SHARDS, BUFFER, SAMPLE = 11, 12, 13


class StreamReader(Protocol):
    """A reader of tar shards."""

    shards: list[str]
    streams: int
    shuffle: int
    samples_per_epoch: int | None
    skips: Skips

    def raw(self, shard: str, skips: Skips) -> Iterator[RawSample]:
        """Encoded samples of one shard; damage to the shard is counted in `skips`."""
        ...

    def decode(self, sample: RawSample) -> Document:
        """The document of an encoded sample."""
        ...


class Place(NamedTuple):
    """Where a stream stands: the pass over the data, and the encoded samples drawn in it."""

    turn: int
    drawn: int


class Chunk(NamedTuple):
    """Some rows of one stream.

    Attributes:
        stream: number of the stream.
        after: its place behind the chunk.
        pixels: uint8 (rows, 3, height, width), None without rows.
        rows: one for each picture.
        skips: what could not be used on the way.
    """

    stream: int
    after: Place
    pixels: Tensor | None
    rows: list[Row]
    skips: Skips


def deal(shards: Sequence[str], seed: int, turn: int, rank: int, ranks: int, stream: int, streams: int) -> list[str]:
    """The shards of one stream of one rank in one pass: every shard goes to exactly one of them."""
    order = list(shards)
    python_random(seed, SHARDS, turn).shuffle(order)
    return order[rank::ranks][stream::streams]


def count_streams(shards: int, streams: int, ranks: int) -> int:
    """Streams for each rank: as wished, or as many as there are shards.

    Raises:
        ValueError: fewer shards than ranks.
    """
    if shards < ranks:
        raise ValueError(
            f"data.train.sources has {shards} shard(s) for {ranks} ranks; every rank needs at least one: "
            "write the data into more shards or train on fewer ranks"
        )
    return min(streams, shards // ranks)


def count_workers(workers: int, streams: int) -> int:
    """The largest divisor of `streams` that is at most `workers`, so that streams stay in turn; 0 stays 0."""
    return max((n for n in range(1, streams + 1) if streams % n == 0 and n <= workers), default=0)


class StreamChunks(IterableDataset):  # type: ignore[type-arg]
    """Chunks of one rank's streams in turn; None marks a stream that has ended while others go on.

    Args:
        reader: the shards.
        collate: makes rows.
        seed: of every order and crop.
        rank: this rank and the number of ranks.
        places: where each stream starts.
        first: the stream whose turn it is.
        endless: whether streams go on with the next pass.
    """

    def __init__(
        self,
        reader: StreamReader,
        collate: Collate,
        seed: int,
        rank: tuple[int, int],
        places: Sequence[Place],
        first: int,
        endless: bool,
    ) -> None:
        self.reader = reader
        self.collate = collate
        self.seed = seed
        self.rank = rank
        self.places = list(places)
        self.first = first
        self.endless = endless

    def __iter__(self) -> Iterator[Chunk | None]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        streams = len(self.places)
        turns = [(self.first + i) % streams for i in range(streams)][worker::workers]
        open_streams: dict[int, Iterator[Chunk]] = {stream: self._chunks(stream) for stream in turns}
        while open_streams:
            for stream in turns:
                chunk = next(open_streams[stream], None) if stream in open_streams else None
                if chunk is None:
                    open_streams.pop(stream, None)
                yield chunk

    def _chunks(self, stream: int) -> Iterator[Chunk]:
        turn, drawn = self.places[stream]
        while True:
            yield from self._one_pass(stream, turn, drawn)
            if not self.endless:
                return
            turn, drawn = turn + 1, 0

    def _one_pass(self, stream: int, turn: int, skip: int) -> Iterator[Chunk]:
        """Chunks of one pass from sample `skip` on; a last one without rows says that the pass is over."""
        read: list[tuple[Tensor, Row]] = []
        skips = Skips()
        drawn = 0
        for sample in self._shuffled(stream, turn, skips):
            drawn += 1
            if drawn <= skip:  # seen before the run was resumed: read past it, decode nothing, count nothing
                skips.take()
                continue
            try:
                random = python_random(self.seed, SAMPLE, turn, self.rank[0], stream, drawn)
                read.append(self.collate.row(self.reader.decode(sample), random))
            except UnusableError as error:
                skips.add(error.reason, error.key)
            if len(read) == CHUNK:
                yield _pack(stream, Place(turn, drawn), read, skips.take())
                read = []
        yield _pack(stream, Place(turn + 1, 0) if self.endless else Place(turn, drawn), read, skips.take())

    def _shuffled(self, stream: int, turn: int, skips: Skips) -> Iterator[RawSample]:
        random = python_random(self.seed, BUFFER, turn, self.rank[0], stream)
        shards = deal(self.reader.shards, self.seed, turn, *self.rank, stream, len(self.places))
        held: list[RawSample] = []
        for sample in (sample for shard in shards for sample in self.reader.raw(shard, skips)):
            if len(held) < self.reader.shuffle:
                held.append(sample)
                continue
            i = random.randrange(len(held))
            held[i], sample = sample, held[i]
            yield sample
        random.shuffle(held)
        yield from held


def _pack(stream: int, after: Place, read: list[tuple[Tensor, Row]], skips: Skips) -> Chunk:
    pixels = stack([one for one, _ in read]) if read else None
    return Chunk(stream, after, pixels, [row for _, row in read], skips)


def unchanged(found: Any) -> Any:
    """What a worker process has made, as it is: for `DataLoader`, which would put it together once more."""
    return found


def batch_seed(seed: int, epoch: int, number: int, rank: int) -> int:
    """Seed of the augmentation of one batch."""
    return derive(seed, 14, epoch, number, rank)
