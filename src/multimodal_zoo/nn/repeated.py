"""The repeated blocks of a model, whatever it is: what is sharded, placed, planned and kept in few bits one by one."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn


def blocks_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The repeated blocks of a model, with their names: every member of an outermost `nn.ModuleList`."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{i}", block) for i, block in enumerate(child))
        else:
            yield from ((f"{name}.{inner}", block) for inner, block in blocks_of(child))
