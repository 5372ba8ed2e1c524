"""The bytes that a rank really holds under FSDP2, against the plan."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from forked import forked
from multimodal_zoo.analysis import Setting
from multimodal_zoo.analysis.memory import training_bytes
from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.training.sharding import local, shard
from multimodal_zoo.zoo import create


def bytes_of(tensors: Iterable[Tensor | None]) -> int:
    return sum(local(t).numel() * t.element_size() for t in tensors if t is not None)


def held() -> dict[str, int]:
    """What a rank has after a step."""
    model = create("eva_clip_tiny").train()
    shard(model, init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.AdamW(model.parameters())
    result = model(torch.randn(2, 3, 48, 48), torch.ones(2, 16, dtype=torch.long))
    (result.image @ result.text.T * result.logit_scale).logsumexp(1).sum().backward()
    optimizer.step()
    states = [s for state in optimizer.state.values() for s in state.values() if torch.is_tensor(s) and s.ndim]
    return {
        "weights": bytes_of(model.parameters()),
        "gradients": bytes_of(p.grad for p in model.parameters()),
        "optimizer": bytes_of(states),
    }


@pytest.mark.multiprocess
def test_a_rank_holds_its_share() -> None:
    found = forked(2, held)
    planned = training_bytes(variant_on_meta("eva_clip_tiny"), 0, Setting(devices=2, strategy="fsdp"))
    for one in found:
        assert one == {key: pytest.approx(getattr(planned, key), rel=0.05) for key in one}
