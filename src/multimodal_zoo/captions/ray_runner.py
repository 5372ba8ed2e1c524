"""Fusion as a Ray Data graph: the units are the dataset, its actors are workers of ours, on one machine or many.

What makes each row appear once is the same as with plain processes, claims and whole units, so that it does not rest on
Ray's retries; what travels through Ray is which rows a unit has, not the rows.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

from multimodal_zoo.captions.bounds import require_least
from multimodal_zoo.captions.claims import Claims
from multimodal_zoo.captions.job import Done, FusionJob, Moving, Task
from multimodal_zoo.captions.sources import Unit
from multimodal_zoo.registry import CAPTIONS

#: Memory of a local Ray for what travels: names alone; Ray's least is 75 MB.
STORE_BYTES = 100_000_000
#: Most units that an actor gets at once, one behind the other in their file, so that it decodes a group of rows once.
TOGETHER = 8


@CAPTIONS.register_module(name="ray_runner")
class RayRunner:
    """Fuses in actors of Ray Data.

    Args:
        actors: how many, each with an engine of its own.
        address: None starts a Ray of this machine and ends it afterwards; `auto`, `ray://host:port` or `host:port` is
            a cluster, whose machines must all see source and folder under the same paths.
        num_cpus: of each actor.
        num_gpus: of each actor; Ray shows it these alone.
        lease: seconds without a sign of life after which a unit that another machine holds is free again.
        restarts: how often an actor that died is started again.

    Raises:
        ValueError: fewer than one actor.
    """

    def __init__(
        self,
        *,
        actors: int = 2,
        address: str | None = None,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        lease: float = 120.0,
        restarts: int = 10,
    ) -> None:
        require_least("runner", 1, actors=actors)
        self.actors, self.address, self.num_cpus, self.num_gpus = actors, address, num_cpus, num_gpus
        self.lease, self.restarts = lease, restarts

    def run(self, job: FusionJob, tasks: Sequence[Task], moving: Moving = lambda rows: None) -> Iterator[Done]:
        """Each task as it is done; those that another run does meanwhile are left out.

        Args:
            job: the run.
            tasks: what to do.
            moving: not told anything: actors report whole units.

        Raises:
            ImportError: Ray is not installed.
            ConnectionError: no cluster at the address.
            Exception: what an actor could not go on with.
        """
        del moving
        if not tasks:
            return
        ray = _ray(local=self.address is None)
        ours = not ray.is_initialized()
        if ours:
            self._connect(ray)
        try:
            yield from self._results(job, tasks)
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        quiet = {"logging_level": "error", "log_to_driver": False}
        if self.address is not None:
            try:
                _knock(self.address)
                ray.init(address=self.address, **quiet)
            except (OSError, ValueError) as error:
                raise ConnectionError(f"runner.address is {self.address}: no Ray cluster there ({error})") from None
            return
        # Ray lends processors by what actors say they need; the machine's own count only bounds that
        cpus = max(os.cpu_count() or 1, round(self.actors * self.num_cpus + 0.5))
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)

    def _results(self, job: FusionJob, tasks: Sequence[Task]) -> Iterator[Done]:
        data = import_module("ray.data")
        exceptions = import_module("ray.exceptions")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        actors = min(self.actors, len(tasks))
        blocks = -(-len(tasks) // max(1, min(TOGETHER, len(tasks) // (4 * actors))))
        # in the dataset, not in the actors' arguments: those of many units are what an actor that starts again may lack
        told = data.from_items([{"task": json.dumps(asdict(task))} for task in tasks], override_num_blocks=blocks)
        with warnings.catch_warnings():  # this version takes the restarts by no other way, and says that it will
            warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
            fused = told.map_batches(
                _Actor,
                fn_constructor_args=(job, self.lease),
                compute=data.ActorPoolStrategy(size=actors),
                batch_size=1,
                num_cpus=self.num_cpus,
                num_gpus=self.num_gpus or None,
                max_restarts=self.restarts,
            )
        try:
            for row in fused.iter_rows():
                if row["done"]:
                    yield Done(**json.loads(row["done"]))
        except exceptions.RayTaskError as error:
            raise _cause(error) from error


class _Actor:
    """A worker inside an actor of Ray: unit by unit, each until it is done by this one or by another."""

    def __init__(self, job: FusionJob, lease: float) -> None:
        from multimodal_zoo.captions.workers import Worker

        self.worker = Worker(job, Claims(job.work / "claims", lease))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Do tasks, one after the other; the results are JSON, empty where another worker was faster."""
        found = []
        for told in batch["task"].tolist():
            done = list(self.worker.work([_task(json.loads(told))]))
            found.append(json.dumps(asdict(done[0])) if done else "")
        return {"done": found}


def _knock(address: str) -> None:
    """Make sure that something listens where an address names a port; Ray itself tries for minutes.

    Raises:
        OSError: nothing does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()


def _task(told: dict[str, Any]) -> Task:
    """A task from plain JSON."""
    broken = told["broken"]
    return Task(Unit(**told["unit"]), told["rounds"], tuple(told["again"]), None if broken is None else tuple(broken))


def _ray(local: bool) -> Any:
    """The module.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if local:  # else this version writes a token into the home folder
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError as error:
        raise ImportError(
            f"runner=ray needs Ray Data ({error}): pip install 'multimodal_zoo[captions]', or runner=processes"
        ) from None


def _cause(error: BaseException) -> BaseException:
    """Our own error inside those that Ray wraps around it."""
    found: BaseException = error
    while isinstance(inner := getattr(found, "cause", None) or found.__cause__, BaseException):
        found = inner
    return found
