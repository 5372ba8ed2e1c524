"""What filters with a least share have in common."""

from __future__ import annotations

from collections.abc import Set


def check_share(value: float, key: str) -> float:
    """The value, if it is a fraction of 1.

    Args:
        value: what the configuration says.
        key: filter and parameter, for the error.

    Raises:
        ValueError: it is below 0 or above 1.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"fusion_filters: {key} is {value}; it is a share, from 0 to 1")
    return value


def falls_short(found: Set[str], wanted: Set[str], least: float) -> str | None:
    """How many were found, if that is less than the least share of those wanted."""
    return f"{len(found)} of {len(wanted)}" if len(found) < least * len(wanted) else None
