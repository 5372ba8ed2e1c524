"""Batches assembled sample by sample: padded rows, packed rows, or a given number of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from multimodal_zoo.data.mixture_loader import Source
from multimodal_zoo.data.token_batches import fit, rows_batch
from multimodal_zoo.data.token_sequences import TokenSample
from multimodal_zoo.objectives.batch import TokenBatch

#: Rows of samples beyond a batch from which packing chooses: 1 leaves twice as much padding, 8 hardly less.
AHEAD = 4


class Assembly(Protocol):
    """How waiting samples become a batch.

    Attributes:
        kind: what the samples are.
    """

    kind: SampleKind

    def ready(self, waiting: list[Any]) -> bool:
        """Whether they are enough."""
        ...

    def batch(self, waiting: list[Any], old: int) -> tuple[TokenBatch, list[Any]]:
        """A batch of them, and those that wait on.

        Args:
            waiting: in order.
            old: how many at the front waited before.
        """
        ...


class SampleKind(NamedTuple):
    """A kind of sample: `TokenSample` and its like, with `ids`, `weights`, `key` and `stored`.

    Attributes:
        batch: rows of samples, one behind the other in each, and what stands at padding, to a batch.
        restored: the inverse of `stored`.
    """

    batch: Callable[[Sequence[Sequence[Any]], int], TokenBatch]
    restored: Callable[[dict[str, Any]], Any]


#: Samples of ids alone.
TOKENS = SampleKind(rows_batch, lambda stored: TokenSample(**stored))


class PaddedRows:
    """One sample in each row.

    Args:
        rows: samples in a batch.
        pad_id: stands at padding.
        kind: what the samples are.
    """

    def __init__(self, rows: int, pad_id: int, kind: SampleKind = TOKENS) -> None:
        self.rows, self.pad_id, self.kind = rows, pad_id, kind

    def ready(self, waiting: list[Any]) -> bool:
        """See `Assembly`."""
        return len(waiting) >= self.rows

    def batch(self, waiting: list[Any], old: int) -> tuple[TokenBatch, list[Any]]:
        """See `Assembly`."""
        rows = [[sample] for sample in waiting[: self.rows]]
        return self.kind.batch(rows, self.pad_id), waiting[self.rows :]


class PackedRows:
    """Several samples in each row, none of them cut: pretraining data as in the report (section 2.4).

    A few rows more than a batch has are looked at, so that short samples fill what long ones leave; the sample that has
    waited longest is always served.

    Args:
        rows: rows of a batch.
        room: most tokens in a row.
        pad_id: stands at padding.
        kind: what the samples are.
    """

    def __init__(self, rows: int, room: int, pad_id: int, kind: SampleKind = TOKENS) -> None:
        self.rows, self.room, self.pad_id, self.kind = rows, room, pad_id, kind

    def ready(self, waiting: list[Any]) -> bool:
        """See `Assembly`."""
        return sum(len(sample.ids) for sample in waiting) >= (self.rows + AHEAD) * self.room

    def batch(self, waiting: list[Any], old: int) -> tuple[TokenBatch, list[Any]]:
        """See `Assembly`."""
        placed, over = fit([len(sample.ids) for sample in waiting], min(old, 1), self.rows, self.room)
        rows = [[waiting[i] for i in row] for row in placed]
        return self.kind.batch(rows, self.pad_id), [waiting[i] for i in over]


class CountedRows:
    """A given number of samples in a batch, in as few rows as they go into, the longest first.

    Args:
        samples: how many.
        room: most tokens in a row.
        pad_id: stands at padding.
        kind: what the samples are.
    """

    def __init__(self, samples: int, room: int, pad_id: int, kind: SampleKind = TOKENS) -> None:
        self.samples, self.room, self.pad_id, self.kind = samples, room, pad_id, kind

    def ready(self, waiting: list[Any]) -> bool:
        """See `Assembly`."""
        return len(waiting) >= self.samples

    def batch(self, waiting: list[Any], old: int) -> tuple[TokenBatch, list[Any]]:
        """See `Assembly`."""
        chosen = waiting[: self.samples]
        placed, _ = fit([len(sample.ids) for sample in chosen], 0, self.samples, self.room)
        rows = [[chosen[i] for i in row] for row in placed if row]
        return self.kind.batch(rows, self.pad_id), waiting[self.samples :]


class AssembledSource:
    """Batches assembled from a source without end.

    A place holds where the source stands and the samples that wait, so that a resumed run goes on with the very next
    batch.

    Args:
        source: gives lists of samples, each with the place behind it.
        assembly: makes batches of them.
    """

    def __init__(self, source: Source, assembly: Assembly) -> None:
        self.source, self.assembly = source, assembly

    def batches(self, state: dict[str, Any] | None) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
        """Batches without end from a place on; None is the beginning."""
        place, stored = (state["source"], state["waiting"]) if state else (None, [])
        waiting = [self.assembly.kind.restored(one) for one in stored]
        source: Iterator[tuple[Any, Any]] = self.source.batches(place)
        old = len(waiting)
        while True:
            while not self.assembly.ready(waiting):
                samples, place = next(source)
                waiting += samples
            batch, waiting = self.assembly.batch(waiting, old)
            old = len(waiting)
            yield batch, {"source": place, "waiting": [sample.stored() for sample in waiting]}
