"""One harness for all front doors: make a valid file, damage it, open it as a user would, judge what came of it.

An input passes if it is read, or if it is refused by an error that the command line would print as one message (our own
code raised it, see `multimodal_zoo.messages`) and that names the file. Anything else is a finding: an error of
another library, one that does not say which file, too little memory, recursion without end, too much time.
"""

from __future__ import annotations

import logging
import resource
import shutil
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzz_mutations import damaged

from multimodal_zoo.commands.errors import message
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.messages import is_ours

#: Processor seconds that one input may take, and bytes that the process may grow by.
SECONDS, GROWTH = 10.0, 1 << 30
READ, REFUSED, FOUND = "read", "refused", "finding"


@dataclass(frozen=True)
class Door:
    """A place where files of others come in.

    Attributes:
        name: what is opened, in words.
        make: writes a valid example into an empty folder; gives the file that is damaged.
        read: opens it, given that file's path, by what a user or a command would call.
        damage: from a valid file's bytes to others.
        share: inputs per hundred of the number asked for: doors that are slow get fewer.
        names: what else than the file's name may stand in the message (the key of a sample, say).
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    damage: Callable[[bytes, Random], bytes] = damaged
    share: int = 100
    names: tuple[str, ...] = ()


@dataclass
class Tally:
    """What came of the inputs of a door.

    Attributes:
        counts: `READ`, `REFUSED`, `FOUND` -> inputs.
        findings: of each, the number of the input and what happened; few are kept.
        slowest: processor seconds of the slowest input.
    """

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0


def judge(error: BaseException, path: Path, names: tuple[str, ...] = ()) -> str | None:
    """What is wrong with an error, in words; None if it is as it should be."""
    if isinstance(error, UnusableError):  # of one sample: readers count it under its key
        return None if error.key else f"does not name a sample: {error}"
    text = message(error)
    if isinstance(error, (MemoryError, RecursionError)) or not is_ours(error):
        return f"raw {type(error).__module__}.{type(error).__name__}: {text[:200]}"
    if path.name not in text and not any(name in text for name in names):
        return f"does not name {path.name}: {type(error).__name__}: {text[:200]}"
    return None


class Late(BaseException):
    """An input took too long."""


def _late(*_: object) -> None:
    raise Late


@contextmanager
def bounded(growth: int = GROWTH) -> Iterator[None]:
    """Let the process allocate no more than so many further bytes, and an input no more than its time."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    handler = signal.signal(signal.SIGPROF, _late)
    resource.setrlimit(resource.RLIMIT_AS, (used + growth, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(door: Door, path: Path) -> tuple[str, str]:
    """Open a file; `READ`, `REFUSED` or `FOUND`, and what was said."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        door.read(path)
    except Late:
        return FOUND, f"not through after {SECONDS:.0f} seconds"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        signal.setitimer(signal.ITIMER_PROF, 0)
        wrong = judge(error, path, door.names)
        return (REFUSED, message(error)) if wrong is None else (FOUND, wrong)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return READ, ""


def run_door(door: Door, folder: Path, inputs: int, seed: int) -> Tally:
    """Try a door with as many inputs as its share says; the same ones for the same seed.

    Args:
        door: what is tried.
        folder: a place for files, emptied afterwards.
        inputs: for a door of share 100.
        seed: decides the damage.

    Raises:
        AssertionError: the undamaged file is not read.
    """
    tally = Tally()
    random = Random(f"{door.name} {seed}")
    place = folder / "door"
    place.mkdir(parents=True)
    path = door.make(place)
    valid = path.read_bytes()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door.read(path)
            with bounded():
                for number in range(max(1, inputs * door.share // 100)):
                    path.write_bytes(door.damage(valid, random))
                    start = time.process_time()
                    what, said = attempt(door, path)
                    tally.slowest = max(tally.slowest, time.process_time() - start)
                    tally.counts[what] += 1
                    if what == FOUND and len(tally.findings) < 50:
                        tally.findings.append(f"input {number} of seed {seed}: {said}")
    finally:
        logging.disable(logging.NOTSET)
        shutil.rmtree(place)
    return tally
