"""Several gloo processes for work that is short: forked, so that none of them imports anything again."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

#: Seconds for all of the work.
PATIENCE = 300


def forked(world: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work` gives on each process of a group; it asks torch for its rank.

    Args:
        world: number of processes.
        work: gives tensors, or plain values and containers of both.
        arguments: of `work`, the same everywhere.

    Raises:
        AssertionError: what went wrong in a process.
    """
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        children = [fork.Process(target=_rank, args=(rank, world, folder, work, arguments)) for rank in range(world)]
        for child in children:
            child.start()
        try:
            for child in children:
                child.join(PATIENCE)
        finally:
            for child in children:
                child.kill()
        told = [one.read_text() for one in sorted(folder.glob("*.txt"))]
        assert [child.exitcode for child in children] == [0] * world, "\n".join(told)
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _rank(rank: int, world: int, folder: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        torch.set_num_threads(1)
        patience, meeting = timedelta(seconds=PATIENCE), f"file://{folder}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world, timeout=patience)
        torch.save(work(*arguments), folder / f"{rank}.pt")
        dist.barrier()
    except BaseException:
        (folder / f"{rank}.txt").write_text(f"process {rank}:\n{traceback.format_exc()}")
        os._exit(1)
    os._exit(0)  # nothing of the parent's is cleared up here
