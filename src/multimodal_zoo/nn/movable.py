"""How records of tensors go to a device, or into page-locked memory, as one.

A dataclass gets both ways by naming them among its attributes: `to, pin_memory = moved, pinned`. Its tensors move, and
those in the dicts, lists, tuples (named ones too) and records of that kind that it holds; whatever is no tensor stays
as it is, and so does a field named in an attribute `stays`. The dataclass checks itself again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record")


def moved(self: Record, device: torch.device | str, non_blocking: bool = False) -> Record:
    """The same with its tensors on `device`."""
    return changed(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))


def pinned(self: Record) -> Record:
    """The same in page-locked memory: what a data loader calls before a copy to an accelerator."""
    return changed(self, lambda tensor: tensor.pin_memory())


def changed(record: Record, change: Callable[[Tensor], Tensor]) -> Record:
    """A record with each of its tensors replaced by what `change` makes of it."""
    stays = getattr(record, "stays", ())
    names = [field.name for field in fields(record) if field.name not in stays]  # type: ignore[arg-type]
    return replace(record, **{name: _changed(getattr(record, name), change) for name in names})  # type: ignore[type-var]


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if getattr(type(value), "pin_memory", None) is pinned:
        return changed(value, change)
    if isinstance(value, dict):
        return {key: _changed(one, change) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [_changed(one, change) for one in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
