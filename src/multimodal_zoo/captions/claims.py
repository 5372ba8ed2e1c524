"""Workers' claims to units of work: files that one of them alone can create; those of dead workers are seen through.

A unit's claims are numbered files, `<unit>.0`, `<unit>.1`, ...; the highest one counts. Whoever finds its holder gone
creates the next number, which succeeds for one alone, so that two heirs never take each other's claim away.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

#: Numbers that are looked at behind a unit's last claim.
GAP = 8


@dataclass(frozen=True)
class Holder:
    """A process that claims units.

    Attributes:
        host: the machine since its last start, and the group of processes that sees this one under `pid`.
        pid: its number there.
        started: when it started, as its system counts; 0 where that cannot be read.
    """

    host: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Holder:
        """The process that asks."""
        return cls(_host(), os.getpid(), _started(os.getpid()))

    def gone(self, idle: float, lease: float) -> bool:
        """Whether it can no longer work.

        On this machine the process itself is looked at; elsewhere its claim counts as left after `lease` seconds
        without a sign of life.

        Args:
            idle: seconds since its last sign of life.
            lease: most of them.
        """
        if self.host != _host():
            return idle > lease
        return not _lives(self.pid) or (self.started != 0 and _started(self.pid) != self.started)


class Claims:
    """The claims in a folder, as one process sees them.

    Args:
        folder: where the files lie; on a file system that all workers share.
        lease: seconds without a sign of life after which a claim from another machine is void. A sign of life is given
            four times a lease by a thread in the background while a claim is held.

    Raises:
        ValueError: a lease that is not positive.
    """

    def __init__(self, folder: str | Path, lease: float = 120.0) -> None:
        if lease <= 0:
            raise ValueError(f"runner.lease is {lease}; it is a positive number of seconds")
        self.folder, self.lease = Path(folder), lease
        self.holder = Holder.this_process()
        self._held: dict[str, Path] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, name: str) -> bool:
        """Claim a unit; whether it is now this process's.

        Look whether the unit is finished afterwards: its last holder may have finished it just before.

        Args:
            name: of the unit.
        """
        number, path = self._last(name)
        if path is not None and not self._left(path):
            return False
        mine = self.folder / f"{name}.{number + 1}"
        if not self._create(mine):
            return False
        self._held[name] = mine
        if self._thread is None:
            self._thread = threading.Thread(target=self._breathe, name="claims", daemon=True)
            self._thread.start()
        return True

    def mine(self, name: str) -> bool:
        """Whether a claim still stands: a process that slept beyond the lease may have heirs."""
        return name in self._held and self._last(name)[1] == self._held[name]

    def inherited(self, name: str) -> bool:
        """Whether a unit that is held had or has another holder too, who may be at work on it still."""
        return not self.mine(name) or self._held[name].suffix != ".0"

    def release(self, name: str, finished: bool) -> None:
        """Give a claim back.

        Args:
            name: of the unit.
            finished: whether nobody needs a claim to it any more; those of earlier holders go too, an heir's stays.
        """
        held = self._held.pop(name)
        earlier = [path for number, path in self._numbered(name) if finished and number < int(held.suffix[1:])]
        for path in [*earlier, held]:
            path.unlink(missing_ok=True)

    def holders(self) -> dict[str, Holder]:
        """Who holds what now, those that are gone left out: unit -> holder."""
        found = {}
        for name in {path.name.rpartition(".")[0] for path in self._files()}:
            path = self._last(name)[1]
            if path is not None and not self._left(path) and (holder := _read(path)) is not None:
                found[name] = holder
        return found

    def held_by(self, pid: int) -> list[str]:
        """Units whose last claim is that of a process of this machine, alive or not."""
        names = {path.name.rpartition(".")[0] for path in self._files()}
        last = {name: self._last(name)[1] for name in names}
        holders = {name: _read(path) for name, path in last.items() if path is not None}
        return sorted(name for name, one in holders.items() if one and one.host == _host() and one.pid == pid)

    def close(self) -> None:
        """Give all claims back and end the thread."""
        self._wake.set()
        for name in list(self._held):
            self.release(name, finished=False)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("*.*") if not path.name.startswith(".")]

    def _numbered(self, name: str) -> list[tuple[int, Path]]:
        """A unit's claims with their numbers, the lowest first; a few names are tried, not a folder of thousands."""
        found: list[tuple[int, Path]] = []
        number = last = 0
        while number - last < GAP:  # claims given back leave gaps
            path = self.folder / f"{name}.{number}"
            if path.exists():
                found.append((number, path))
                last = number
            number += 1
        return found

    def _last(self, name: str) -> tuple[int, Path | None]:
        numbered = self._numbered(name)
        return numbered[-1] if numbered else (-1, None)

    def _left(self, path: Path) -> bool:
        """Whether a claim's holder is gone."""
        try:
            idle = time.time() - path.stat().st_mtime
        except FileNotFoundError:  # given back since
            return True
        holder = _read(path)
        if holder is None:  # half-written, where files cannot be created with their content
            return idle > self.lease
        return holder.gone(idle, self.lease)

    def _create(self, path: Path) -> bool:
        """Create a claim with its content in one step; False if it is there."""
        text = json.dumps(asdict(self.holder))
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / f".{secrets.token_hex(8)}"
        draft.write_text(text)
        try:
            os.link(draft, path)
        except FileExistsError:  # so says NFS too where its first answer got lost: then the draft has two names
            return draft.stat().st_nlink > 1
        except OSError:  # a file system without hard links
            try:
                with path.open("x") as file:
                    file.write(text)
            except FileExistsError:
                return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _breathe(self) -> None:
        while not self._wake.wait(self.lease / 4):
            for path in list(self._held.values()):
                try:
                    os.utime(path)
                except OSError:  # given back just now, or a file system that will answer the next time
                    continue


def _read(path: Path) -> Holder | None:
    """Who wrote a claim; None if it is not there or not whole."""
    try:
        return Holder(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


@cache
def _host() -> str:
    """Name of the machine, its start and its table of processes: a number of a process means nothing elsewhere."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()} {start} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not Linux
        return platform.node()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _state(pid) not in ("Z", "X")


def _fields(pid: int) -> list[str]:
    """What the system says of a process behind its name, which may hold blanks; nothing where it does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    """One letter; Z is a process that ended and whose parent has not asked yet."""
    return (_fields(pid) or ["?"])[0]


def _started(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[19]) if len(fields) > 19 else 0
