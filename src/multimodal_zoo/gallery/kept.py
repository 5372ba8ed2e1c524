"""A few things in memory that are costly to make: each is lent to one visitor at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

V = TypeVar("V")


class _Slot(Generic[V]):
    """A thing, once it is made, and the lock of whoever has it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.made: list[V] = []


class Kept(Generic[V]):
    """Things by name; of those that nobody has, the one used longest ago goes first.

    Args:
        most: things that stay.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._slots: dict[Hashable, _Slot[V]] = {}  # the one used last stands last
        self._lock = threading.Lock()

    @contextmanager
    def lent(self, name: Hashable, make: Callable[[], V]) -> Iterator[V]:
        """A thing, for one block alone; others who want the same wait, those who want another one do not.

        Args:
            name: unique.
            make: makes it, if it is not there.
        """
        with self._lock:
            slot = self._slots[name] = self._slots.pop(name, _Slot())
            idle = [one for one, known in self._slots.items() if known is not slot and not known.lock.locked()]
            for one in idle[: max(0, len(self._slots) - self.most)]:
                del self._slots[one]  # before another one takes its room
        with slot.lock:
            if not slot.made:
                slot.made.append(make())
            yield slot.made[0]
