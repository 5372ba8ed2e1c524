"""What a model writes behind a prompt, and when that is over; without torch, which engines load when they are asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Ending:
    """When a continuation is over.

    Attributes:
        limit: most tokens of it.
        ends: ids that end it.
        stops: whether the tokens so far end it, for texts that do.
        deadline: by `time.monotonic`, after which a batch is given up; None for never.
    """

    limit: int
    ends: Collection[int]
    stops: Callable[[Sequence[int]], bool] | None = None
    deadline: float | None = None

    def over(self, token: int, written: list[int]) -> bool:
        """Add a token to what is written, unless it is an end; whether that ends it."""
        if token in self.ends:
            return True
        written.append(token)
        return self.stops is not None and self.stops(written)

    def check_time(self) -> None:
        """Look at the clock.

        Raises:
            TimeoutError: it is too late.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError("a batch took longer than fusion_engine.timeout allows")


@dataclass(frozen=True)
class Continuation:
    """What a model wrote behind one prompt.

    Attributes:
        ids: without the one that ends it.
        ended: False where it was cut at the limit.
    """

    ids: list[int]
    ended: bool
