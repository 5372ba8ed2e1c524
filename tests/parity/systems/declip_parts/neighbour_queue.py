"""The nearest-neighbour queue: look-up, then update, one call after the other on one queue."""

from __future__ import annotations

import torch
from harness.cases import Case
from harness.run import Outcome, Request
from harness.words import take_known
from torch import Tensor

from multimodal_zoo.objectives.queue import NeighbourQueue


def started(case: Case, bank: Tensor) -> NeighbourQueue:
    """A queue that holds the columns of the case's bank; a full batch leaves the pointer where it was."""
    config = take_known(case.config, {"size", "topk"}, "config")
    assert config["topk"] == 1, "published code cannot use more neighbours than one"
    assert config["size"] == bank.shape[1], f"the bank has {bank.shape[1]} columns, not {config['size']}"
    queue = NeighbourQueue(config["size"], len(bank))
    queue.enqueue(bank.T)
    return queue


def look_up_and_update(request: Request) -> Outcome:
    """Neighbours before the update, whole and in blocks; entries and pointer after it."""
    features, *bank = request.case.take(request.call)
    queue = request.case.once("queue", lambda: started(request.case, *bank))
    neighbours = tuple(queue.nearest(features, block_size)[1][None] for block_size in (4096, 2))
    if request.match["update"] == "True":
        queue.enqueue(features)
    names = dict(zip(("neighbours", "bank", "pointer"), request.call.outputs, strict=True))
    bank_after, pointer = queue.entries.T.clone(), queue.pointer.clone()[None]
    assert pointer.dtype == torch.long
    return {names["neighbours"]: neighbours, names["bank"]: bank_after, names["pointer"]: pointer}
