"""LAMB whose trust ratio is clamped and acts on every tensor, on plain and on sharded parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from multimodal_zoo.training.sharding import local


class ClampedLamb(Optimizer):
    """LAMB (arXiv:1904.00962) in the form that EVA-CLIP's published runs took from DeepSpeed.

    With the running means m and v of the gradient and of its square, a tensor p moves by
    `-lr * sqrt(1 - beta2^t) / (1 - beta1^t) * ratio * u`, where `u = m / (sqrt(v) + eps) + weight_decay * p` and
    `ratio = |p| / |u|`, kept between two bounds; it is 1 where either norm is zero. Three things differ from
    `timm.optim.Lamb`: the bounds, the ratio of tensors without weight decay (there only with `always_adapt`), and the
    bias correction, which here scales the decay too and comes after the ratio instead of before it.

    The norms are those of whole tensors, however they are sharded: training on many ranks takes the steps of one.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: decay of the two running means.
        eps: added outside of the root.
        weight_decay: part of the update that the ratio is taken of.
        lowest_ratio: lower bound of the trust ratio.
        highest_ratio: upper bound of the trust ratio.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        lowest_ratio: float = 0.01,
        highest_ratio: float = 10.0,
    ) -> None:
        if lr < 0 or eps < 0 or weight_decay < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"optim: lr {lr}, eps {eps}, weight_decay {weight_decay} must not be negative, betas {list(betas)} "
                "must lie in [0, 1)"
            )
        if not 0 <= lowest_ratio <= highest_ratio:
            raise ValueError(
                f"optim.lowest_ratio is {lowest_ratio} and highest_ratio {highest_ratio}: need 0 <= lowest <= highest"
            )
        bounds = {"lowest_ratio": lowest_ratio, "highest_ratio": highest_ratio}
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, **bounds})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Move every parameter that has a gradient; the ranks that share sharded parameters must call it together.

        Args:
            closure: computes the loss again.

        Returns:
            what the closure gave.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._move(parameters, group)
        return loss

    def _move(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        states = [self._state(parameter) for parameter in parameters]
        steps = torch.stack([state["step"].add_(1) for state in states])
        values = [local(parameter) for parameter in parameters]
        gradients = [local(p.grad).to(value.dtype) for p, value in zip(parameters, values, strict=True)]  # type: ignore[arg-type]
        means = [local(state["mean"]) for state in states]
        squares = [local(state["square"]) for state in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        updates = torch._foreach_sqrt(squares)
        torch._foreach_add_(updates, group["eps"])
        updates = torch._foreach_div(means, updates)
        if group["weight_decay"]:
            torch._foreach_add_(updates, values, alpha=group["weight_decay"])
        ratios = trust_ratios(parameters, updates, group["lowest_ratio"], group["highest_ratio"])
        sizes = group["lr"] * (1 - beta2**steps).sqrt() / (1 - beta1**steps)
        torch._foreach_mul_(updates, list((-ratios * sizes.to(ratios)).unbind()))
        torch._foreach_add_(values, updates)

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float64)
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        return state


def trust_ratios(parameters: Sequence[Tensor], updates: Sequence[Tensor], lowest: float, highest: float) -> Tensor:
    """`|p| / |u|` of each parameter, clamped; 1 where either is zero.

    Args:
        parameters: plain or sharded.
        updates: of each parameter, this rank's part.
        lowest: lower bound.
        highest: upper bound.

    Returns:
        float32 `(parameters,)`.
    """
    values = [local(parameter) for parameter in parameters]
    norms = torch.stack([torch.stack(torch._foreach_norm(values)), torch.stack(torch._foreach_norm(updates))]).float()
    squares = norms.square()
    # one collective for all tensors of a group: those of one mesh are summed over it, plain ones are whole already
    for mesh, shared in _meshes(parameters):
        part = squares[:, shared].contiguous()
        dist.all_reduce(part, group=mesh.get_group())
        squares[:, shared] = part
    weight, update = squares.sqrt()
    ratio = (weight / update).clamp(lowest, highest)
    return torch.where((weight > 0) & (update > 0), ratio, 1.0)


def _meshes(parameters: Sequence[Tensor]) -> list[tuple[Any, list[int]]]:
    """The device meshes over which parameters are split, each with the numbers of those parameters."""
    found: dict[Any, list[int]] = {}
    for number, parameter in enumerate(parameters):
        if isinstance(parameter, DTensor):
            (placement,) = parameter.placements  # data-parallel sharding: one dimension
            if placement.is_shard():
                found.setdefault(parameter.device_mesh, []).append(number)
    return list(found.items())
