"""Records of tensors that go to a device, or into page-locked memory, as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

Record = TypeVar("Record", bound="Movable")


class Movable:
    """A dataclass whose tensors move together: its own, and those in dicts, lists, tuples and records that it holds.

    Whatever is no tensor stays as it is, and so does a field named in `stays`. The dataclass checks itself again.
    """

    stays: ClassVar[frozenset[str]] = frozenset()

    def to(self: Record, device: torch.device | str, non_blocking: bool = False) -> Record:
        """The same with its tensors on `device`."""
        return self.changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: Record) -> Record:
        """The same in page-locked memory: what a data loader calls before a copy to an accelerator."""
        return self.changed(lambda tensor: tensor.pin_memory())

    def changed(self: Record, change: Callable[[Tensor], Tensor]) -> Record:
        """The same with each of its tensors replaced by what `change` makes of it."""
        names = [field.name for field in fields(self) if field.name not in self.stays]  # type: ignore[arg-type]
        found = {name: _changed(getattr(self, name), change) for name in names}
        return replace(self, **found)  # type: ignore[type-var]


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Movable):
        return value.changed(change)
    if isinstance(value, dict):
        return {key: _changed(one, change) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_changed(one, change) for one in value)
    return value
