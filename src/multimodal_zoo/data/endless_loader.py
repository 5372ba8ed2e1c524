"""Loader of what goes on without end: an epoch is a number of batches, and a run resumes after any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from multimodal_zoo.data.position import Position

#: Batches from a place on (None: the beginning), each with the place behind it.
Batches = Callable[[Any], Iterator[tuple[Any, Any]]]


class EndlessLoader:
    """Batches of one rank; what they come from goes on from epoch to epoch.

    Args:
        batches: where they come from.
        length: batches in what is called an epoch.
        position: where to start; the loader announces what follows each batch there.
        counting: whether this loader itself counts its batches as taken (no trainer does).
        report: called at the end of each epoch, to tell what was skipped.

    Raises:
        ValueError: an epoch below one batch.
    """

    def __init__(
        self,
        batches: Batches,
        length: int,
        position: Position,
        counting: Callable[[], bool],
        report: Callable[[], None],
    ) -> None:
        if length < 1:
            raise ValueError(
                f"an epoch has {length} batches: raise data.batching.batches_per_epoch or samples_per_epoch"
            )
        self.batches, self.length = batches, length
        self.position, self.counting, self.report = position, counting, report
        self._open: Iterator[tuple[Any, Any]] | None = None
        self._at = (-1, -1)

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self.length

    def __iter__(self) -> Iterator[Any]:
        epoch, number = self.position.begin()
        self.position.length = self.length
        if self._open is None or self._at != (epoch, number):
            self.close()
            self._open = self.batches(self.position.streams)
        # A trainer gets a whole epoch's worth from wherever it starts, and stops by itself.
        for _ in range(self.length - (number if self.counting() else 0)):
            batch, place = next(self._open)
            number += 1
            self.position.announce(epoch, number, place)
            if self.counting():
                self.position.take()
            if number == self.length:
                epoch, number = epoch + 1, 0
            self._at = epoch, number
            yield batch
        self.report()

    def close(self) -> None:
        """Stop the worker processes; the next iteration starts again at the position."""
        if self._open is not None:
            self._open.close()  # type: ignore[attr-defined]
        self._open, self._at = None, (-1, -1)
