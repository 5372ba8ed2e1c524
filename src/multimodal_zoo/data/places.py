"""Documents with their places in a data set, so that reading can go on where an earlier run stopped.

A place is a tuple of whole numbers: the number of a document, or of a tar and of a sample in it. Reading on costs next
to nothing for numbered documents, and the bytes of one tar's beginning (nothing is decoded) for tar shards.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.shards import RawSample
from multimodal_zoo.data.skips import Skips, UnusableError

#: Keys that enter the fingerprint of numbered documents.
PROBED = 256
Place = tuple[int, ...]


class Found(NamedTuple):
    """A document and where it stands."""

    place: Place
    document: Document


class Order(Protocol):
    """The documents of one rank, in an order that does not change between runs."""

    skips: Skips

    def after(self, place: Place | None) -> Iterator[Found]:
        """The usable documents behind a place, or all of them; the others are counted in `skips`."""
        ...

    def at(self, place: Place) -> Document:
        """The document at a place.

        Raises:
            LookupError: nothing is there any more.
            UnusableError: it cannot be read any more.
        """
        ...

    def size(self) -> int | None:
        """Number of documents, usable or not, if it is known without reading them."""
        ...

    def contents(self) -> dict[str, Any]:
        """What tells other contents under the same name: equal for equal data, cheap, without opening pictures."""
        ...


class Numbered:
    """Documents that can be asked for by number: every `ranks`-th one.

    Args:
        reader: with a length and numbered items; an item that cannot be used raises `UnusableError`.
        rank: this rank.
        ranks: number of ranks.
    """

    def __init__(self, reader: Any, rank: int = 0, ranks: int = 1) -> None:
        self.reader, self.rank, self.ranks = reader, rank, ranks
        self.skips: Skips = getattr(reader, "skips", Skips())

    def after(self, place: Place | None) -> Iterator[Found]:
        """See `Order`."""
        first = self.rank if place is None else place[0] + self.ranks
        for number in range(first, len(self.reader), self.ranks):
            try:
                document = self.reader[number]
            except UnusableError as error:
                self.skips.add(error.reason, error.key)
                continue
            yield Found((number,), document)

    def at(self, place: Place) -> Document:
        """See `Order`."""
        document: Document = self.reader[place[0]]
        return document

    def size(self) -> int | None:
        """See `Order`."""
        return len(range(self.rank, len(self.reader), self.ranks))

    def contents(self) -> dict[str, Any]:
        """The number of documents, and a hash of the keys of some of them where they can be had cheaply."""
        count = len(self.reader)
        facts = getattr(self.reader, "facts", None)
        if facts is None:
            return {"documents": count}
        keys = []
        for number in range(0, count, max(1, count // PROBED)):
            try:
                keys.append(str(facts(number).get("key")))
            except UnusableError:
                keys.append("")
        return {"documents": count, "keys": _hash(keys)}


class TarShards:
    """Samples of tar shards, in the order of the shards: every `ranks`-th shard.

    Args:
        reader: as `webdataset_pairs`: has `shards`, `raw` and `decode`.
        rank: this rank.
        ranks: number of ranks.

    Raises:
        ValueError: fewer shards than ranks.
    """

    def __init__(self, reader: Any, rank: int = 0, ranks: int = 1) -> None:
        if len(reader.shards) < ranks:
            raise ValueError(f"ranks: {ranks} ranks for {len(reader.shards)} tar shard(s); every rank needs one")
        self.reader, self.rank, self.ranks = reader, rank, ranks
        self.skips: Skips = reader.skips

    def after(self, place: Place | None) -> Iterator[Found]:
        """See `Order`."""
        first, seen = (self.rank, -1) if place is None else place
        for number in range(first, len(self.reader.shards), self.ranks):
            for position, sample in enumerate(self.reader.raw(self.reader.shards[number], self.skips)):
                if number == first and position <= seen:
                    self.skips.take()  # what stood before was counted when it was read first
                    continue
                try:
                    yield Found((number, position), self.reader.decode(sample))
                except UnusableError as error:
                    self.skips.add(error.reason, error.key)

    def at(self, place: Place) -> Document:
        """See `Order`."""
        number, position = place
        samples: Iterator[RawSample] = self.reader.raw(self.reader.shards[number], Skips())
        for i, sample in enumerate(samples):
            if i == position:
                document: Document = self.reader.decode(sample)
                return document
        raise LookupError(f"{self.reader.shards[number]} has no sample number {position}")

    def size(self) -> int | None:
        """See `Order`."""
        return None

    def contents(self) -> dict[str, Any]:
        """The number of shards, and a hash of their names and, of local ones, lengths."""
        local = [os.path.getsize(shard) if os.path.exists(shard) else 0 for shard in self.reader.shards]
        names = [os.path.basename(shard) for shard in self.reader.shards]
        return {"shards": len(names), "names": _hash([f"{n} {s}" for n, s in zip(names, local, strict=True)])}


class Stream:
    """Documents of a reader that only goes through them from the first to the last: every `ranks`-th one.

    Reading on from a place reads everything before it again.

    Args:
        reader: yields usable documents.
        rank: this rank.
        ranks: number of ranks.
    """

    def __init__(self, reader: Any, rank: int = 0, ranks: int = 1) -> None:
        self.reader, self.rank, self.ranks = reader, rank, ranks
        self.skips: Skips = getattr(reader, "skips", Skips())

    def after(self, place: Place | None) -> Iterator[Found]:
        """See `Order`."""
        seen = -1 if place is None else place[0]
        for number, document in enumerate(self.reader):
            if number <= seen:
                self.skips.take()
            elif number % self.ranks == self.rank:
                yield Found((number,), document)

    def at(self, place: Place) -> Document:
        """See `Order`."""
        for number, document in enumerate(self.reader):
            if number == place[0]:
                found: Document = document
                return found
        raise LookupError(f"{type(self.reader).__name__} has no document number {place[0]}")

    def size(self) -> int | None:
        """See `Order`."""
        return None

    def contents(self) -> dict[str, Any]:
        """Nothing: only reading would tell."""
        return {}


def in_order(reader: Any, rank: int = 0, ranks: int = 1) -> Order:
    """The documents of a reader with their places, for one of several ranks.

    Args:
        reader: numbered documents, tar shards, or anything that yields documents.
        rank: this rank.
        ranks: number of ranks; every document goes to exactly one.

    Raises:
        ValueError: a rank that does not exist, fewer tar shards than ranks.
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"rank: {rank} of {ranks} ranks; ranks count from 0")
    if hasattr(reader, "__getitem__") and hasattr(reader, "__len__"):
        return Numbered(reader, rank, ranks)
    if all(hasattr(reader, name) for name in ("shards", "raw", "decode")):
        return TarShards(reader, rank, ranks)
    return Stream(reader, rank, ranks)


def _hash(names: Sequence[str]) -> str:
    content = "\n".join(names).encode("utf-8", "surrogatepass")  # names of files may be no UTF-8
    return hashlib.sha256(content).hexdigest()[:16]
