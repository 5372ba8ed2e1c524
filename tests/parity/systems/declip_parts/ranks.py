"""Losses over features gathered from several gloo processes, and the gradients that come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from harness.cases import Case
from harness.run import Outcome, Request
from harness.words import take_known
from safetensors.torch import load_file, save_file
from systems.declip_parts import gathering_rank
from torch import Tensor


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
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        folder, world = Path(name), config["world_size"]
        save_file({one: case.tensors[one] for job in jobs for one in job["inputs"]}, folder / "inputs.safetensors")
        (folder / "jobs.json").write_text(json.dumps({"config": config, "jobs": jobs}))
        command = [sys.executable, gathering_rank.__file__, str(folder)]
        children = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
            for rank in range(world)
        ]
        for child in children:
            output, _ = child.communicate(timeout=600)
            assert child.returncode == 0, output.decode()
        return [load_file(folder / f"{rank}.safetensors") for rank in range(world)]
