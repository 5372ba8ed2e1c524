"""Where two model nodes differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differences(ours: Any, again: Any, place: str = "model") -> list[str]:
    """`model.a.b=value` for each value of `ours` that `again` has otherwise or not at all, and the reverse."""
    if isinstance(ours, Mapping) and isinstance(again, Mapping):
        keys = [*ours, *(key for key in again if key not in ours)]
        return [found for key in keys for found in differences(ours.get(key), again.get(key), f"{place}.{key}")]
    return [] if ours == again else [f"{place}={ours}"]
