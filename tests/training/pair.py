"""Two processes that train one run after the other: starting them costs more than all their short runs.

As a program it is one of the two: it takes a line of JSON for each run from its standard input, and answers each with a
line of its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning import Callback
from omegaconf import DictConfig, OmegaConf


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
    from multimodal_zoo.training import assemble

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
        self.folder = folder
        self.processes = []
        for rank in range(2):
            own = {**os.environ, **shared, "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
            with (folder / f"rank_{rank}.log").open("w") as printed:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, __file__],
                        env=own,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=printed,
                        text=True,
                    )
                )

    def train(self, config: DictConfig, stop: int | None = None, starter: str = "") -> None:
        """Hand over a run; `answer` waits for it.

        Args:
            config: a composed recipe.
            stop: a step behind which the second process gets SIGTERM.
            starter: whose variables the processes have while it lasts (`started_by`).
        """
        given = {"config": OmegaConf.to_container(config, resolve=True), "stop": stop, "starter": starter}
        line = json.dumps(given)
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def answer(self) -> list[int]:
        """The exit status that each process would have had after the oldest run that was not asked for yet."""
        found = []
        for process in self.processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "\n".join((self.folder / f"rank_{one}.log").read_text()[-4000:] for one in range(2))
            found.append(int(line))
        return found

    @property
    def alive(self) -> bool:
        """Whether both processes take runs."""
        return all(process.poll() is None for process in self.processes)

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            process.wait(timeout=60)


def main() -> None:
    """Train what the lines say."""
    import torch

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from multimodal_zoo.commands.train import run
    from undrawn import undrawn

    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr
    rank, own = int(os.environ["LOCAL_RANK"]), dict(os.environ)
    for line in sys.stdin:
        given = json.loads(line)
        status = 0
        if variables := started_by(given["starter"], rank):
            del os.environ["LOCAL_RANK"]
            os.environ.update(variables)
        try:
            with undrawn(), watched_by(*([Interrupt(given["stop"])] if rank == 1 and given["stop"] else [])):
                run(OmegaConf.create(given["config"]))
        except SystemExit as end:
            status = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # the other process fails at its next message
        for key in os.environ.keys() - own.keys():
            del os.environ[key]
        os.environ.update(own)
        print(status, file=answers, flush=True)
    sys.stderr.flush()
    os._exit(0)  # all is saved; under load, torch's threads sometimes abort an ordinary exit


if __name__ == "__main__":
    main()
