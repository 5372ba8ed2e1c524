"""Which errors are messages for the user, and how they read; the standard library only."""

from __future__ import annotations

from typing import Any


def is_ours(error: BaseException) -> bool:
    """Whether our own code raised the error on purpose: its innermost frame lies in this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    inside = trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("multimodal_zoo")
    return inside and isinstance(error, (LookupError, ValueError, TypeError, OSError, RuntimeError, ImportError))


def message(error: BaseException) -> str:
    """One readable line or more for an error of ours."""
    text: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
    return f"mmzoo: {text}{notes}\n(MMZOO_TRACEBACK=1 shows where)"
