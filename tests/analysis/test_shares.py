"""The bytes that a rank really holds under FSDP2, against the plan."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from multimodal_zoo.analysis import Setting
from multimodal_zoo.analysis.memory import training_bytes
from multimodal_zoo.checkpoints.guess import variant_on_meta

PROGRAM = """
import json, os, sys
import torch
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from multimodal_zoo.training.sharding import local, shard
from multimodal_zoo.zoo import create

place, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2)
torch.set_num_threads(1)
model = create("eva_clip_tiny").train()
shard(model, init_device_mesh("cpu", (2,)))
optimizer = torch.optim.AdamW(model.parameters())
result = model(torch.randn(2, 3, 48, 48), torch.ones(2, 16, dtype=torch.long))
(result.image @ result.text.T * result.logit_scale).logsumexp(1).sum().backward()
optimizer.step()

def held(tensors):
    return sum(local(t).numel() * t.element_size() for t in tensors)

states = [s for state in optimizer.state.values() for s in state.values() if torch.is_tensor(s) and s.ndim]
found = {
    "weights": held(model.parameters()),
    "gradients": held(p.grad for p in model.parameters()),
    "optimizer": held(states),
}
print(json.dumps(found))
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # all is saved; under load, torch's threads sometimes abort an ordinary exit
"""


@pytest.mark.multiprocess
def test_a_rank_holds_its_share(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True, env=environment) for rank in (0, 1)
    ]
    found = [json.loads(rank.communicate(timeout=120)[0].splitlines()[-1]) for rank in ranks]
    planned = training_bytes(variant_on_meta("eva_clip_tiny"), 0, Setting(devices=2, strategy="fsdp"))
    for held in found:
        assert held == {key: pytest.approx(getattr(planned, key), rel=0.05) for key in held}
