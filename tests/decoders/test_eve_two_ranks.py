"""EVE sharded over two gloo processes, one of which has texts only."""

from __future__ import annotations

import pytest
import torch
from eve_documents import Squares, packed, sample, tiny, watched
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing import assert_close

from forked import forked
from multimodal_zoo.encoders.patch_teacher import PatchTeacher
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.patch_alignment import AlignedNextToken

WORLD = 2
#: Which rows each process has: pictures and a text beside texts alone; two processes with pictures; nothing but texts.
SHARES = {"text on one": ([0, 1], [2]), "pictures on both": ([0, 2], [1, 3]), "text on both": ([2], [4, 5])}
MODELS = {"version 1, aligned": 1, "version 2": 2}


def batch_of(chosen: list[int], aligned: bool) -> PictureTokenBatch:
    """Some of six rows that are the same in every process."""
    torch.manual_seed(7)
    rows = [
        [sample(2, (2, 3), 3)],
        [sample(1, (1, 1), (2, 2), 4), sample(3)],
        [sample(5)],
        [sample(2, (3, 1), 2)],
        [sample(4)],
        [sample(2), sample(4)],
    ]
    views = {id(one): torch.randn(3, 12, 12) for row in rows for part in row for one in part.pictures}
    batch = packed([rows[number] for number in chosen])
    if aligned and batch.pictures is not None:
        watched(batch)
        own = [one for number in chosen for part in rows[number] for one in part.pictures]
        batch.teacher = torch.stack([views[id(one)] for one in own])
    return batch


def run(name: str, chosen: list[int], sharded: bool) -> dict[str, Tensor]:
    """Losses and gradients of one step, with weights and teacher that are the same in every process."""
    from multimodal_zoo.training.sharding import inside, shard

    aligned = MODELS[name] == 1
    model: nn.Module = tiny(MODELS[name], aligned=aligned).train()
    objective: nn.Module = NextToken()
    if aligned:
        torch.manual_seed(3)
        objective = AlignedNextToken(objective, PatchTeacher(Squares(), layer=-2))
    batch = batch_of(chosen, aligned)
    if sharded:
        shard(model, dist.init_device_mesh("cpu", (WORLD,)))
    found = inside(model, objective, batch)
    found["loss"].backward()
    gradients = {key: p.grad for key, p in model.named_parameters()}
    whole = {key: grad.full_tensor() if isinstance(grad, DTensor) else grad for key, grad in gradients.items()}
    return {"loss": found["loss"].detach(), **{key: grad for key, grad in whole.items() if grad is not None}}


def work() -> dict:
    """What one process finds."""
    number = dist.get_rank()
    return {name: {share: run(name, rows[number], True) for share, rows in SHARES.items()} for name in MODELS}


@pytest.fixture(scope="module")
def runs() -> list[dict]:
    """What each process found."""
    return forked(WORLD, work)


@pytest.mark.multiprocess
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_are_as_one(runs: list[dict], name: str, share: str) -> None:
    """Nobody waits for a gradient that does not come, and all gradients are those of the whole batch."""
    whole = run(name, [*SHARES[share][0], *SHARES[share][1]], False)
    parts = [one[name][share] for one in runs]
    assert_close(torch.stack([part["loss"] for part in parts]).mean(), whole["loss"])
    for part in parts:
        assert part.keys() == whole.keys()
        for key in whole.keys() - {"loss"}:
            assert_close(part[key], whole[key], atol=2e-5, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")
