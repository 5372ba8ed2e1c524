"""Model nodes looked at: a value by its path, what matters of a node, where two differ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any


def below(node: Any, path: str) -> Any:
    """The value of a node at `a.b.c`; None where there is none."""
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def essence(node: Any, ignored: Collection[str], empty: Collection[Any] = (None,)) -> Any:
    """A node without some keys, and without those that say nothing; its lists as lists.

    Args:
        node: a node, or any value in one.
        ignored: keys, at any depth.
        empty: values that say nothing.
    """
    if isinstance(node, Mapping):
        kept = {key: essence(value, ignored, empty) for key, value in node.items() if key not in ignored}
        return {key: value for key, value in kept.items() if value not in empty}
    return [essence(value, ignored, empty) for value in node] if isinstance(node, (list, tuple)) else node


def differences(ours: Any, again: Any, place: str = "model") -> list[str]:
    """`model.a.b=value` for each value of `ours` that `again` has otherwise or not at all, and the reverse."""
    if isinstance(ours, Mapping) and isinstance(again, Mapping):
        keys = [*ours, *(key for key in again if key not in ours)]
        return [found for key in keys for found in differences(ours.get(key), again.get(key), f"{place}.{key}")]
    return [] if ours == again else [f"{place}={ours}"]
