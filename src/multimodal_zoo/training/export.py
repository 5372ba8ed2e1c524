"""The trained model as one ordinary module, however it was sharded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from multimodal_zoo.registry import build
from multimodal_zoo.training.deferred import deferred_model
from multimodal_zoo.training.sharding import full_state, is_sharded

#: What travels with a model's weights, as `zoo.attach` gives it.
ATTACHED = ("processor", "card", "variant", "config", "weights")


def whole_model(model: nn.Module, primary: bool) -> nn.Module | None:
    """The model itself, or a copy on the CPU with every tensor whole if it is sharded.

    Args:
        model: the trained model; every rank must call this for a sharded one.
        primary: whether this rank goes on with the model.

    Returns:
        None on the other ranks.
    """
    if not is_sharded(model):
        return model if primary else None
    state = full_state(model, keep=primary)
    if not primary:
        return None
    node: dict[str, Any] = model.config  # type: ignore[assignment]
    parts = {key: value for key, value in node.items() if key not in ("processor", "card")}
    copy = _frame(lambda: build(parts, path="model"))
    copy.load_state_dict(state, assign=True)
    for name in ATTACHED:
        setattr(copy, name, getattr(model, name))
    return copy


def _frame(build: Callable[[], nn.Module]) -> nn.Module:
    """A model to be filled, without the memory of its matrices where its parts allow that."""
    try:
        return deferred_model(build, draw=False)[0]
    except NotImplementedError:
        return build()
