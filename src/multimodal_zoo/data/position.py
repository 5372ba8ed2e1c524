"""How far training has read: counted by batches that the trainer took, not by what workers have read ahead."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Position:
    """A place in the data.

    Attributes:
        epoch: the epoch.
        batch: batches taken in this epoch.
        streams: where each stream of shards stands after that batch (streaming data sets only).
    """

    epoch: int = 0
    batch: int = 0
    streams: dict[str, Any] | None = None
    _ahead: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)

    def begin(self, epoch: int) -> int:
        """Start or resume an epoch; gives the number of its first batch."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0
        self._ahead.clear()
        return self.batch

    def announce(self, batch: int, streams: dict[str, Any]) -> None:
        """Note where the streams stand once `batch` batches of this epoch have been taken."""
        self._ahead[batch] = streams

    def take(self) -> None:
        """The trainer took one batch."""
        self.batch += 1
        if self.batch in self._ahead:
            self.streams = self._ahead.pop(self.batch)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"epoch": self.epoch, "batch": self.batch, "streams": self.streams}

    def restore(self, state: dict[str, Any]) -> None:
        """Go to where a checkpoint was."""
        self.epoch, self.batch, self.streams = state["epoch"], state["batch"], state["streams"]
        self._ahead.clear()
