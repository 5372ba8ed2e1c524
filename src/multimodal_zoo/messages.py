"""Which errors are messages for whoever asked; the standard library only."""

from __future__ import annotations

from typing import Any


def is_ours(error: BaseException) -> bool:
    """Whether our own code raised the error on purpose: its innermost frame lies in this package."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    inside = trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("multimodal_zoo")
    return inside and isinstance(error, (LookupError, ValueError, TypeError, OSError, RuntimeError, ImportError))


def sentence(error: BaseException) -> str:
    """What an error says, with what was noted on it."""
    text: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
    return f"{text}{notes}"
