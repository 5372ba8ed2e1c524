"""Batches assembled sample by sample: packed rows, and mixtures drawn document by document; resumable after any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from multimodal_zoo.data.mixture import SourceMixture
from multimodal_zoo.data.mixture_loader import Source
from multimodal_zoo.data.position import Position
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


class MixedSource:
    """Documents of several sources, each drawn from the one that is furthest behind its share.

    Args:
        mixture: which source is next.
        sources: the sources by name.
    """

    def __init__(self, mixture: SourceMixture, sources: Mapping[str, Source]) -> None:
        self.mixture, self.sources = mixture, dict(sources)

    def batches(self, state: Any) -> Iterator[tuple[Any, Any]]:
        """Samples without end from a place on; None is the beginning.

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
            samples, place = next(opened[name])
            drawn = {**state["drawn"], name: state["drawn"][name] + 1}
            state = {"drawn": drawn, "places": {**state["places"], name: place}}
            yield samples, state


class AssembledLoader:
    """Batches of one rank, assembled from a source without end; an epoch is a number of batches.

    The position holds where the source stands and the samples that wait, so that a resumed run goes on with the very
    next batch.

    Args:
        source: gives lists of samples, each with the place behind it.
        assembly: makes batches of them.
        length: batches in what is called an epoch.
        position: where to start; the loader announces what follows each batch there.
        counting: whether this loader itself counts its batches as taken (no trainer does).
        report: called at the end of each epoch, to tell what was skipped.

    Raises:
        ValueError: an epoch below one batch.
    """

    def __init__(
        self,
        source: Source,
        assembly: Assembly,
        length: int,
        position: Position,
        counting: Callable[[], bool],
        report: Callable[[], None],
    ) -> None:
        if length < 1:
            raise ValueError(
                f"an epoch has {length} batches: raise data.batching.batches_per_epoch or samples_per_epoch"
            )
        self.source, self.assembly, self.length = source, assembly, length
        self.position, self.counting, self.report = position, counting, report
        self._batches: Iterator[tuple[TokenBatch, dict[str, Any]]] | None = None
        self._at = (-1, -1)

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.length

    def __iter__(self) -> Iterator[TokenBatch]:
        epoch, number = self.position.begin()
        self.position.length = self.length
        if self._batches is None or self._at != (epoch, number):
            self.close()
            self._batches = self._assembled(self.position.streams)
        # A trainer gets a whole epoch's worth from wherever it starts, and stops by itself.
        for _ in range(self.length - (number if self.counting() else 0)):
            batch, state = next(self._batches)
            number += 1
            self.position.announce(epoch, number, state)
            if self.counting():
                self.position.take()
            if number == self.length:
                epoch, number = epoch + 1, 0
            self._at = epoch, number
            yield batch
        self.report()

    def _assembled(self, state: dict[str, Any] | None) -> Iterator[tuple[TokenBatch, dict[str, Any]]]:
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

    def close(self) -> None:
        """Stop the worker processes; the next iteration starts again at the position."""
        if self._batches is not None:
            self._batches.close()  # type: ignore[attr-defined]
        self._batches, self._at = None, (-1, -1)
