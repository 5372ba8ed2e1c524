"""Copies of a model whose tensors hold no data."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

#: What travels with a model, or with a part of it, and is no part of its cost.
ATTACHED = ("processor", "card", "scheduler")
#: The policy of recomputing that each stack's declaration has.
DECLARED = "declared"


def shadow(model: nn.Module, make: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy of a model with each tensor replaced; tensors that the model shares, the copy shares too.

    Args:
        model: on any device; it is not touched, and its tensors are not copied.
        make: gives the replacement of a parameter or buffer.
    """
    replaced: dict[int, object] = {}
    for parameter in model.parameters():
        replaced[id(parameter)] = nn.Parameter(make(parameter), parameter.requires_grad)
    for buffer in model.buffers():
        replaced[id(buffer)] = make(buffer)
    return copy.deepcopy(model, replaced | attached(model))


def attached(model: nn.Module) -> dict[int, object]:
    """What travels with a model or its parts and no copy needs anew, by id, as `copy.deepcopy` takes it."""
    found = (getattr(part, name, None) for part in model.modules() for name in ATTACHED)
    return {id(one): one for one in found if one is not None and not isinstance(one, nn.Module)}


def on_meta(model: nn.Module) -> nn.Module:
    """A copy on the meta device: shapes only."""
    return shadow(model, lambda tensor: torch.empty_like(tensor, device="meta"))


def recompute_by(model: nn.Module, policy: str) -> None:
    """Give every stack of a copy the same policy of recomputing, in place; `DECLARED` leaves them as they are."""
    if policy == DECLARED:
        return
    for part in model.modules():
        if isinstance(getattr(part, "checkpoint", None), str):
            part.checkpoint = policy  # type: ignore[assignment]


class ReadZeros(TorchDispatchMode):
    """Every number that is read off a tensor is 0: checks of values pass although there are no values."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the operator, unless it reads a value."""
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        return func(*args, **(kwargs or {}))
