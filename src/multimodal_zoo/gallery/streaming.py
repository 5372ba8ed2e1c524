"""Work that says how far it is, as a generator: the last thing that was said is what a page shows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class StoppedError(Exception):
    """Nobody waits for the work any more; raised where it says how far it is."""


def streamed(work: Callable[[Callable[[T], None]], None], seconds: float) -> Iterator[T]:
    """What a function says while it works in a thread of its own; what comes too fast is left out, the last never.

    Closing the generator ends the work where it speaks next. Nobody waits for that: a server closes generators in the
    loop that answers all visitors, and the next word may be long in coming. Work that needs something alone waits for
    it in its own thread (`kept`).

    Args:
        work: gets what it speaks with.
        seconds: that it may take.

    Raises:
        TimeoutError: it took longer, noticed where it spoke.
        Exception: what the work raised.
    """
    stage: _Stage[T] = _Stage(seconds)
    threading.Thread(target=stage.run, args=(work,), daemon=True).start()
    try:
        yield from stage.said()
    finally:
        stage.stop()


class _Stage(Generic[T]):
    """What passes between the thread that works and the one that shows."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._changed = threading.Condition()
        self._latest: list[T] = []
        self._error: BaseException | None = None
        self._done = self._stopped = False

    def run(self, work: Callable[[Callable[[T], None]], None]) -> None:
        """Work, in a thread of its own."""
        try:
            work(self._say)
        except StoppedError:
            pass
        except BaseException as error:
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()

    def _say(self, value: T) -> None:
        with self._changed:
            if self._stopped:
                raise StoppedError
            if time.monotonic() >= self._end:
                raise TimeoutError(
                    f"stopped after {self.seconds:,.0f} seconds; ask for less, or start with seconds=MORE"
                )
            self._latest = [value]
            self._changed.notify_all()

    def said(self) -> Iterator[T]:
        """What is said, until the work ends."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._latest or self._done)
                latest, self._latest, done = self._latest, [], self._done
            yield from latest
            if done and not self._latest:
                break
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let the work end where it speaks next."""
        with self._changed:
            self._stopped = True
