"""Fusion by processes of this machine: one or several, each with an engine of its own; dead ones are replaced."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.claims import Claims
from multimodal_zoo.captions.job import Done, FusionJob, Moving, Task
from multimodal_zoo.registry import CAPTIONS

#: Seconds between two messages of a worker about rows that move.
OFTEN = 0.5
#: New objects after which a worker looks for garbage; rows come by the thousand and hold no circles.
GARBAGE = 10_000


class WorkerTraceback(Exception):
    """Where a worker's error came from, as text: shown as its cause."""

    def __str__(self) -> str:
        """The text, on lines of its own."""
        return f"\n{self.args[0]}"


@CAPTIONS.register_module(name="process_runner")
class ProcessRunner:
    """Fuses in this process, or in several others.

    A worker that is killed is replaced; whoever gets its unit begins that one anew. When the process that started them
    dies, workers end by themselves.

    Args:
        processes: how many; 1 works in this process and starts none.
        visible_devices: accelerators, one for each process in turn, as CUDA_VISIBLE_DEVICES names them; None leaves the
            choice to the engine.
        lease: seconds without a sign of life after which a unit that another machine holds is free again.
        tries: a unit at which so many workers died stops the run.

    Raises:
        ValueError: a number below 1.
    """

    def __init__(
        self,
        *,
        processes: int = 1,
        visible_devices: Sequence[int | str] | None = None,
        lease: float = 120.0,
        tries: int = 3,
    ) -> None:
        require_least("runner", 1, processes=processes, tries=tries)
        self.processes, self.lease, self.tries = processes, lease, tries
        self.visible_devices = [str(one) for one in visible_devices or ()]

    def run(self, job: FusionJob, tasks: Sequence[Task], moving: Moving = lambda rows: None) -> Iterator[Done]:
        """Each task as it is done; those that another run does meanwhile are left out.

        Raises:
            RuntimeError: workers died at one unit again and again.
            Exception: what a worker could not go on with, from its own process.
        """
        if not tasks:
            return
        if self.processes == 1 and not self.visible_devices:
            yield from _here(job, tasks, self.lease, moving)
        else:
            with _Crew(self, job, tasks) as crew:
                yield from crew.results(moving)

    def devices(self, place: int) -> str | None:
        """CUDA_VISIBLE_DEVICES of one of the processes."""
        return self.visible_devices[place % len(self.visible_devices)] if self.visible_devices else None


class _Crew:
    """Processes at work, and what they tell."""

    def __init__(self, runner: ProcessRunner, job: FusionJob, tasks: Sequence[Task]) -> None:
        self.runner, self.job, self.tasks = runner, job, tasks
        self.context = multiprocessing.get_context("spawn")
        self.claims = Claims(job.work / "claims", runner.lease)
        self.members: dict[Connection, tuple[SpawnProcess, int]] = {}
        self.deaths: Counter[str] = Counter()

    def __enter__(self) -> _Crew:
        for place in range(min(self.runner.processes, len(self.tasks))):
            self._start(place)
        return self

    def __exit__(self, *error: object) -> None:
        for process, _ in self.members.values():
            process.terminate()
        for connection, (process, _) in self.members.items():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
            connection.close()

    def _start(self, place: int) -> None:
        ours, theirs = self.context.Pipe(duplex=False)
        first = place * len(self.tasks) // self.runner.processes
        arguments = (self.job, self.tasks, first, self.runner.lease, self.runner.devices(place), theirs)
        process = self.context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self.members[ours] = (process, place)

    def results(self, moving: Moving) -> Iterator[Done]:
        """What the workers have done, until all have ended."""
        while self.members:
            for connection in wait(list(self.members), timeout=1.0):
                assert isinstance(connection, Connection)
                try:
                    told = connection.recv()
                except (EOFError, OSError):  # the pipe of a process that ended
                    self._ended(connection)
                    continue
                if isinstance(told, Done):
                    yield told
                elif isinstance(told, int):
                    moving(told)
                else:
                    error, where = told
                    raise error from WorkerTraceback(where)

    def _ended(self, connection: Connection) -> None:
        """Replace a process that did not end by itself.

        Raises:
            RuntimeError: it was not the first one at its unit.
        """
        process, place = self.members.pop(connection)
        process.join()
        connection.close()
        if process.exitcode == 0:
            return
        units = self.claims.held_by(process.pid or 0)
        self.deaths.update(units or ["no unit"])
        worst, count = self.deaths.most_common(1)[0]
        if count >= self.runner.tries and (units or worst == "no unit"):
            raise RuntimeError(
                f"{count} workers died at {worst}, the last one with exit code {process.exitcode} (-9 is often a lack "
                "of memory: fewer runner.processes, a smaller unit_rows or fusion_engine.batch_size); what is done "
                "stays, and the same command goes on behind it"
            )
        self._start(place)


def _here(job: FusionJob, tasks: Sequence[Task], lease: float, moving: Moving) -> Iterator[Done]:
    from multimodal_zoo.captions.workers import Worker

    claims = Claims(job.work / "claims", lease)
    worker = None
    try:
        worker = Worker(job, claims, moving)
        yield from worker.work(tasks)
    finally:
        (worker or claims).close()


def _work(
    job: FusionJob, tasks: Sequence[Task], first: int, lease: float, devices: str | None, told: Connection
) -> None:
    """What a process of a crew does."""
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from multimodal_zoo.captions.workers import Worker

    signal.signal(signal.SIGTERM, _leave)
    claims = Claims(job.work / "claims", lease)
    worker = None
    lock = threading.Lock()
    rows, sent = 0, time.monotonic()

    def _send(message: Any) -> None:
        with lock:
            told.send(message)

    def _moving(more: int) -> None:
        nonlocal rows, sent
        rows += more
        if time.monotonic() - sent >= OFTEN:
            _send(rows)
            rows, sent = 0, time.monotonic()

    try:
        worker = Worker(job, claims, _moving)
        gc.freeze()  # what is loaded stays: a tenth of a dry run's time went into looking for garbage in it
        gc.set_threshold(GARBAGE)
        for done in worker.work(tasks, first):
            _send(done)
    except Exception as error:
        _send((_portable(error), traceback.format_exc()))
    finally:
        (worker or claims).close()


def _leave(*signal_and_frame: object) -> None:
    """End a process by an exception, so that half-written files go and claims are given back."""
    raise SystemExit(128 + signal.SIGTERM)


def _portable(error: Exception) -> Exception:
    """An error that another process can read."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:  # constructors of any library
        return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, which could not say so if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
