"""Batch norm over two processes is that of one over all samples."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.nn.shared_norm import SharedBatchNorm

SHARES = (slice(0, 3), slice(3, 8))


def _norm() -> SharedBatchNorm:
    torch.manual_seed(0)
    norm = SharedBatchNorm(4).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm.train()


def _maps() -> torch.Tensor:
    return torch.randn(8, 4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 40


def _learn(norm: nn.Module, maps: torch.Tensor) -> dict[str, torch.Tensor]:
    maps = maps.clone().requires_grad_()
    result = norm(maps)
    result.pow(3).sum().backward()
    state = {f"state.{name}": value.clone() for name, value in norm.state_dict().items()}
    grads = {f"grad.{name}": value.grad for name, value in norm.named_parameters()}
    return {"result": result.detach(), "maps": maps.grad, **state, **grads}


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save(_learn(_norm(), _maps()[SHARES[rank]]), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.multiprocess
def test_two_processes_are_one(tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path)]
    children = [subprocess.Popen([*command, str(rank)], env=environment) for rank in range(2)]
    assert [child.wait(timeout=120) for child in children] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    one = _learn(_norm(), _maps())
    for name in ("result", "maps"):
        assert_close(torch.cat((first[name], second[name])), one[name])
    for name in (name for name in one if name.startswith("grad.")):
        assert_close(first[name] + second[name], one[name])
    for name in (name for name in one if name.startswith("state.")):
        assert_close(first[name], one[name])
        assert_close(second[name], one[name])


def test_alone_it_is_torchs_own() -> None:
    plain = nn.BatchNorm2d(4).double()
    plain.load_state_dict(_norm().state_dict())
    for name, value in _learn(plain.train(), _maps()).items():
        assert_close(_learn(_norm(), _maps())[name], value)
    with torch.no_grad():
        assert_close(_norm().eval()(_maps()), plain.eval().__class__.forward(_norm().eval(), _maps()))


if __name__ == "__main__":
    _rank(int(sys.argv[2]), sys.argv[1])
