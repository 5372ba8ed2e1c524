"""Numbers of a configuration that have a least value."""

from __future__ import annotations


def require_least(part: str, least: float, **values: float | None) -> None:
    """Check numbers of a part; None is fine.

    Args:
        part: whose they are, for the error: `fusion_engine`, `captioner`, `runner`.
        least: of each.
        values: by key.

    Raises:
        ValueError: one is below `least`.
    """
    for name, value in values.items():
        if value is not None and value < least:
            raise ValueError(f"{part}.{name} is {value}; it must be at least {least}")
