"""Two processes that train one run after the other: forked, so that they import nothing that the tests have."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from lightning import Callback
from omegaconf import DictConfig

from multimodal_zoo.commands.train import run
from multimodal_zoo.training import assemble

#: Seconds for one run.
PATIENCE = 300


class Interrupt(Callback):
    """Sends SIGTERM to this very process behind a step, before anything of it is saved.

    Args:
        step: optimiser steps that are over.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def watched_by(*more: Callback) -> Iterator[None]:
    """Runs inside have further callbacks."""
    callbacks: Callable[[Mapping[str, Any]], list[Callback]] = assemble.callbacks
    assemble.callbacks = lambda config: [*callbacks(config), *more]
    try:
        yield
    finally:
        assemble.callbacks = callbacks


def started_by(starter: str, rank: int) -> dict[str, str]:
    """The variables that a starter sets for a process of two on one machine; none for ours."""
    if starter == "torchrun":
        given = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "LOCAL_WORLD_SIZE": 2, "WORLD_SIZE": 2}
        return {**{key: str(value) for key, value in given.items()}, "TORCHELASTIC_RUN_ID": "none"}
    if starter == "srun":
        given = {"JOB_ID": 7, "NTASKS": 2, "NTASKS_PER_NODE": 2, "PROCID": rank, "LOCALID": rank, "NODEID": 0}
        named = {"JOB_NAME": "train", "NODELIST": "localhost", "JOB_NODELIST": "localhost"}
        return {f"SLURM_{key}": str(value) for key, value in {**given, **named}.items()}
    return {}


class Pair:
    """Starts the processes, hands them runs, and closes them.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "NODE_RANK": "0"}
        fork, self.folder, self.ends, self.processes = multiprocessing.get_context("fork"), folder, [], []
        for rank in range(2):
            end, theirs = fork.Pipe()
            own = {**shared, "LOCAL_RANK": str(rank)}
            process = fork.Process(target=_serve, args=(theirs, own, folder / f"rank_{rank}.log"), daemon=True)
            process.start()
            theirs.close()
            self.ends.append(end)
            self.processes.append(process)

    def train(self, config: DictConfig, stop: int | None = None, starter: str = "") -> None:
        """Hand over a run; `answer` waits for it.

        Args:
            config: a composed recipe.
            stop: a step behind which the second process gets SIGTERM.
            starter: whose variables the processes have while it lasts (`started_by`).
        """
        for rank, end in enumerate(self.ends):
            end.send((config, stop if rank == 1 else None, started_by(starter, rank)))

    def answer(self) -> list[int]:
        """The exit status that each process would have had after the oldest run that was not asked for yet."""
        found = []
        for end in self.ends:
            try:
                found.append(end.recv() if end.poll(PATIENCE) else None)
            except EOFError:
                found.append(None)
            if found[-1] is None:
                printed = [(self.folder / f"rank_{rank}.log").read_text()[-4000:] for rank in range(2)]
                self.close()
                raise AssertionError("\n".join(printed))
        return found

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.join()


def _serve(end: Connection, variables: Mapping[str, str], log: Path) -> None:
    """Train what comes, as one of the two processes."""
    sys.stdout = sys.stderr = log.open("w", buffering=1)
    for number in (1, 2):
        os.dup2(sys.stderr.fileno(), number)
    os.environ.update(variables)
    torch.set_num_threads(1)
    own = dict(os.environ)
    while True:
        config, stop, started = end.recv()
        if started:
            del os.environ["LOCAL_RANK"]
            os.environ.update(started)
        status = 0
        try:
            with watched_by(*([Interrupt(stop)] if stop else [])):
                run(config)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # the other process fails at its next message
        for key in os.environ.keys() - own.keys():
            del os.environ[key]
        os.environ.update(own)
        end.send(status)
