"""How far training has read: counted by batches that the trainer took, not by what workers have read ahead."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """A place in the data: it depends on the batches taken only, whatever a trainer calls an epoch.

    Attributes:
        epoch: passes over the data that are over.
        batch: batches taken since.
        streams: where each stream of shards stands after that batch (streaming data sets only).
        length: batches in this epoch; None until it is known.
    """

    epoch: int = 0
    batch: int = 0
    streams: dict[str, Any] | None = None
    length: int | None = None
    _ahead: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict, repr=False)

    def begin(self) -> tuple[int, int]:
        """Forget what was read ahead; gives the epoch and the number of the next batch."""
        self._ahead.clear()
        return self.epoch, self.batch

    def announce(self, epoch: int, batch: int, streams: dict[str, Any]) -> None:
        """Note where the streams stand once `batch` batches of an epoch have been taken."""
        self._ahead[epoch, batch] = streams

    def take(self) -> None:
        """The trainer took one batch."""
        self.batch += 1
        self.streams = self._ahead.pop((self.epoch, self.batch), self.streams)
        self._turn()

    def finish(self, length: int) -> None:
        """It became known that this epoch has `length` batches; the next one is read from the start."""
        self.length = length
        if self._turn():
            self.length = None

    def _turn(self) -> bool:
        if self.length is None or self.batch < self.length:
            return False
        self.epoch, self.batch = self.epoch + 1, 0
        return True

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"epoch": self.epoch, "batch": self.batch, "streams": self.streams}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where a checkpoint was."""
        self.epoch, self.batch, self.streams = state["epoch"], state["batch"], state["streams"]
        self._ahead.clear()
