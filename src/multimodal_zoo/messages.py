"""Which errors are messages for whoever asked; the standard library only."""

from __future__ import annotations

from typing import Any


def is_ours(error: BaseException) -> bool:
    """Whether our own code raised the error on purpose: its innermost frame lies in this package."""
    ours = raised_in(error).startswith("multimodal_zoo")
    return ours and isinstance(error, (LookupError, ValueError, TypeError, OSError, RuntimeError, ImportError))


def raised_in(error: BaseException) -> str:
    """The module of an error's innermost frame; empty for one that was never raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def sentence(error: BaseException) -> str:
    """What an error says, with what was noted on it."""
    text: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
    return f"{text}{notes}"
