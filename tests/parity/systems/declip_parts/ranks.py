"""Losses over features gathered from several gloo processes, and the gradients that come back."""

from __future__ import annotations

import torch
from harness.cases import Case
from harness.run import Outcome, Request
from harness.words import take_known
from systems.declip_parts.gathering_rank import results_of
from torch import Tensor

from forked import forked


def gathered(request: Request) -> Outcome:
    """What every process has after backward; all calls of a case share one run of the processes."""
    case = request.case
    known = {"world_size", "local_batch", "top_k", "temperature"}
    config = take_known(case.config, known, "config")
    for tensor in case.take(request.call):
        assert tensor.shape[:2] == (config["world_size"], config["local_batch"]), tuple(tensor.shape)
    ranks = case.once("ranks", lambda: run_ranks(case, config))
    return {name: torch.stack([rank[name] for rank in ranks]) for name in request.call.outputs}


def run_ranks(case: Case, config: dict) -> list[dict[str, Tensor]]:
    """The results of each process, for all calls of a case."""
    jobs = [{"outputs": call.outputs[0], "inputs": call.inputs, "extra": dict(call.extra)} for call in case.calls]
    tensors = {name: case.tensors[name] for job in jobs for name in job["inputs"]}
    return forked(config["world_size"], results_of, jobs, tensors, config)
