"""Emu3's cases: texts."""

from __future__ import annotations

from collections.abc import Callable

from harness.cases import Case
from harness.run import Outcome, System

#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
