"""The clamped LAMB against its formula, and on sharded tensors against whole ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from forked import forked
from multimodal_zoo.training.lamb import ClampedLamb

SETTINGS = {"betas": (0.9, 0.95), "eps": 1e-6, "lowest_ratio": 0.01, "highest_ratio": 10.0}
SHAPES = ((4, 6), (7,), (5, 3), ())
SCALES = (1.0, 0.0, 1e-4, 300.0)  # the last two leave the bounds; zero has a ratio of one


def start() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) * s for shape, s in zip(SHAPES, SCALES, strict=True)]


def gradients(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=generator) for shape in SHAPES]


def by_formula(values: list[Tensor], steps: int, lr: float, decay: float) -> tuple[list[Tensor], list[float]]:
    """The update written out in float64, tensor by tensor; also the unclamped ratios of the last step."""
    (beta1, beta2), eps = SETTINGS["betas"], SETTINGS["eps"]
    values = [value.double() for value in values]
    means, squares = ([torch.zeros_like(v) for v in values] for _ in range(2))
    ratios = []
    for step in range(1, steps + 1):
        ratios = []
        for i, gradient in enumerate(g.double() for g in gradients(step)):
            means[i] = beta1 * means[i] + (1 - beta1) * gradient
            squares[i] = beta2 * squares[i] + (1 - beta2) * gradient**2
            update = means[i] / (squares[i].sqrt() + eps) + decay * values[i]
            weight, length = float(values[i].norm()), float(update.norm())
            ratios.append(weight / length)
            ratio = min(10.0, max(0.01, weight / length)) if weight > 0 and length > 0 else 1.0
            values[i] = values[i] - lr * math.sqrt(1 - beta2**step) / (1 - beta1**step) * ratio * update
    return values, ratios


def train(values: list[Tensor], steps: int, lr: float, decay: float) -> list[nn.Parameter]:
    parameters = [nn.Parameter(value.clone()) for value in values]
    optimizer = ClampedLamb(parameters, lr=lr, weight_decay=decay, **SETTINGS)
    for step in range(1, steps + 1):
        for parameter, gradient in zip(parameters, gradients(step), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return parameters


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_steps_follow_the_formula(decay: float) -> None:
    expected, ratios = by_formula(start(), steps=4, lr=0.01, decay=decay)
    assert min(ratios) < 0.01
    assert max(ratios) > 10 or decay  # with decay a large tensor has a large update too
    for found, wanted in zip(train(start(), 4, 0.01, decay), expected, strict=True):
        torch.testing.assert_close(found.detach().double(), wanted, atol=1e-6, rtol=2e-6)


def test_tensors_without_decay_have_a_ratio() -> None:
    from timm.optim import Lamb

    value, gradient = torch.full((3, 3), 4.0), torch.ones(3, 3)
    ends = []
    for make in (ClampedLamb, Lamb):
        parameter = nn.Parameter(value.clone())
        parameter.grad = gradient.clone()
        make([parameter], lr=0.1, weight_decay=0.0).step()
        ends.append(float(parameter.detach()[0, 0]))
    assert ends[0] == pytest.approx(4 - 0.1 * math.sqrt(1 - 0.999) / (1 - 0.9) * 4, rel=1e-5)  # ratio * u = |p| here
    assert ends[1] == pytest.approx(4 - 0.1, rel=1e-5)  # timm's is Adam there


def test_state_survives_a_file(tmp_path: Path) -> None:
    parameters = train(start(), 2, 0.01, 0.05)
    optimizer = ClampedLamb(parameters, lr=0.01, weight_decay=0.05, **SETTINGS)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    other = ClampedLamb([nn.Parameter(p.detach().clone()) for p in parameters], lr=0.5)
    other.load_state_dict(torch.load(tmp_path / "o.pt", weights_only=True))
    for group, mine in ((g, optimizer.param_groups[0]) for g in other.param_groups):
        assert group["lr"] == mine["lr"] == 0.01
        for one, two in zip(group["params"], mine["params"], strict=True):
            one.grad = two.grad
    optimizer.step()
    other.step()
    for one, two in zip(other.param_groups[0]["params"], parameters, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": -1.0}, "lr -1.0"),
        ({"lr": 1.0, "betas": (0.9, 1.0)}, r"betas \[0.9, 1.0\]"),
        ({"lr": 1.0, "lowest_ratio": 2.0, "highest_ratio": 1.0}, r"optim.lowest_ratio is 2.0 and highest_ratio 1.0"),
    ],
)
def test_values_out_of_range(given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClampedLamb([nn.Parameter(torch.zeros(2))], **given)


class Holder(nn.Module):
    """Some parameters, the last of which is not sharded."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.ParameterList([nn.Parameter(value.clone()) for value in start()])


def sharded_steps() -> list[torch.Tensor]:
    """Where four steps on sharded tensors end."""
    mesh, holder = init_device_mesh("cpu", (2,)), Holder()
    fully_shard(holder, mesh=mesh, ignored_params={holder.values[3]})
    optimizer = ClampedLamb(list(holder.parameters()), lr=0.01, weight_decay=0.05, **SETTINGS)
    for step in range(1, 5):
        for parameter, gradient in zip(holder.parameters(), gradients(step), strict=True):
            split = isinstance(parameter, DTensor)
            parameter.grad = distribute_tensor(gradient, mesh, parameter.placements) if split else gradient
        optimizer.step()
    return [p.full_tensor().detach() if isinstance(p, DTensor) else p.detach() for p in holder.parameters()]


@pytest.mark.multiprocess
def test_sharded_tensors_take_the_same_steps() -> None:
    ends, _ = forked(2, sharded_steps)
    for found, wanted in zip(ends, train(start(), 4, 0.01, 0.05), strict=True):
        torch.testing.assert_close(found, wanted.detach(), atol=1e-7, rtol=1e-6)
