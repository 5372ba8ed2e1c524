"""The trained model as one ordinary module, however it was sharded."""

from __future__ import annotations

from typing import Any

from torch import nn

from multimodal_zoo.registry import build
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
    state = full_state(model)
    if not primary:
        return None
    node: dict[str, Any] = model.config  # type: ignore[assignment]
    copy: nn.Module = build({k: v for k, v in node.items() if k not in ("processor", "card")}, path="model")
    copy.load_state_dict(state, assign=True)
    for name in ATTACHED:
        setattr(copy, name, getattr(model, name))
    return copy
