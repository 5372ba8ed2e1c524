"""Batch norm over two processes is that of one over all samples."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing import assert_close

from forked import forked
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


def _share() -> dict[str, torch.Tensor]:
    return _learn(_norm(), _maps()[SHARES[dist.get_rank()]])


@pytest.mark.multiprocess
def test_two_processes_are_one() -> None:
    first, second = forked(2, _share)
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
