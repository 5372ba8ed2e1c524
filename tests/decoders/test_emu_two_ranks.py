"""Emu over two gloo processes, one of which may have words only."""

from __future__ import annotations

import pytest
import torch
from emu_documents import FRAME, PICTURE, packed, sample, tiny
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from forked import forked
from multimodal_zoo.objectives.next_element import NextElement
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch

WORLD = 2
#: Which rows each process has: pictures beside words alone; pictures everywhere; nothing but words.
SHARES = {"words on one": ([0, 1], [2]), "pictures on both": ([0, 2], [1, 3]), "words on both": ([2], [4, 5])}
SYSTEMS = ("emu", "emu2")
WAYS = ("replicated", "sharded")


def batch_of(system: str, chosen: list[int]) -> VisualTokenBatch:
    """Some of six rows that are the same in every process."""
    torch.manual_seed(7)
    rows = [
        [sample(system, 2, PICTURE, 3)],
        [sample(system, 1, PICTURE, FRAME, 4), sample(system, 3)],
        [sample(system, 5)],
        [sample(system, 2, FRAME, 2)],
        [sample(system, 4)],
        [sample(system, 2), sample(system, 4)],
    ]
    return packed([rows[number] for number in chosen])


class Whole(torch.nn.Module):
    """Model and objective as one module, whose forward the replicas share."""

    def __init__(self, system: str) -> None:
        super().__init__()
        self.model = tiny(system).train()
        self.objective = NextElement(NextToken(), 0.5)

    def forward(self, batch: VisualTokenBatch) -> dict[str, Tensor]:
        return self.objective(self.model, batch)


def run(system: str, chosen: list[int], way: str) -> dict[str, Tensor]:
    """Losses and gradients of one step, with weights that are the same in every process."""
    from multimodal_zoo.training.sharding import inside, shard

    whole, batch = Whole(system), batch_of(system, chosen)
    replica = DistributedDataParallel(whole) if way == "replicated" else None  # it must live until the backward pass
    if replica is not None:
        found = replica(batch)
    else:
        if way == "sharded":
            shard(whole.model, dist.init_device_mesh("cpu", (WORLD,)))
        found = inside(whole.model, whole.objective, batch)
    found["loss"].backward()
    gradients = {key: p.grad for key, p in whole.model.named_parameters()}
    full = {key: grad.full_tensor() if isinstance(grad, DTensor) else grad for key, grad in gradients.items()}
    losses = {key: found[key].detach() for key in ("loss", "language_loss", "regression_loss", "target_deviation")}
    return {**losses, **{key: grad for key, grad in full.items() if grad is not None}}


def work() -> dict:
    """What one process finds."""
    number = dist.get_rank()
    return {
        (system, way, share): run(system, rows[number], way)
        for system in SYSTEMS
        for way in WAYS
        for share, rows in SHARES.items()
    }


@pytest.fixture(scope="module")
def runs() -> list[dict]:
    """What each process found."""
    return forked(WORLD, work)


@pytest.mark.multiprocess
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_are_as_one(runs: list[dict], system: str, way: str, share: str) -> None:
    """Nobody waits for a gradient that does not come, and all gradients are those of the whole batch."""
    whole = run(system, [*SHARES[share][0], *SHARES[share][1]], "alone")
    parts = [one[system, way, share] for one in runs]
    assert_close(torch.stack([part["loss"] for part in parts]).mean(), whole["loss"])
    for part in parts:
        assert part.keys() == whole.keys()
        for key in whole.keys() - {"loss"}:
            assert_close(part[key], whole[key], atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")
