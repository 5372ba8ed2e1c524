"""Work that SIGKILL ends in a process of its own: forked, so that it imports nothing again."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multimodal_zoo.files import HALF

#: Seconds for all of the work.
PATIENCE = 120


def killed(work: Callable[..., Any], *arguments: Any) -> None:
    """Do work in a process, with a group of its own, that kills itself somewhere in it.

    Args:
        work: calls `kill` in time.
        arguments: of `work`.

    Raises:
        AssertionError: the work ended otherwise, or did not end.
    """
    child = multiprocessing.get_context("fork").Process(target=_grouped, args=(work, arguments))
    child.start()
    child.join(PATIENCE)
    ended = not child.is_alive()
    child.kill()
    child.join()
    assert ended, f"not through after {PATIENCE} seconds"
    assert child.exitcode == -signal.SIGKILL, f"it ended with {child.exitcode}"


def _grouped(work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setpgid(0, 0)
    work(*arguments)


def kill() -> None:
    """End this process and those that it has started: nothing is caught, flushed or cleared up."""
    os.killpg(0, signal.SIGKILL)


def kill_at_call(number: int) -> None:
    """Kill this process behind so many calls of Python functions and returns from them."""
    left = iter(range(number))

    def count(*_: object) -> None:
        if next(left, None) is None:
            kill()

    sys.setprofile(count)


def kill_once_written(path: str | Path, every: int = 1) -> None:
    """Kill this process as soon as the first bytes of a file are on the disk.

    Args:
        path: of the file.
        every: calls of functions and returns from them between two looks.
    """
    path, left = str(path), itertools.cycle(range(every))

    def look(*_: object) -> None:
        if not next(left) and os.path.exists(path) and os.path.getsize(path):
            kill()

    sys.setprofile(look)


def kill_in_file(number: int) -> None:
    """Kill this process in the middle of a file that it writes under a temporary name, or in a folder of such a name.

    Args:
        number: of the file, counted from 1.
    """
    seen: set[str] = set()

    def opened(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or len(seen) == number or not isinstance(arguments[0], (str, os.PathLike)):
            return
        path = os.fspath(arguments[0])
        if isinstance(path, str) and any(map(HALF.fullmatch, path.split(os.sep))):
            seen.add(path)
            if len(seen) == number:
                kill_once_written(path)

    sys.addaudithook(opened)
