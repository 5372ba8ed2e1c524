"""How errors of ours read on a terminal; the standard library only."""

from __future__ import annotations

from multimodal_zoo.messages import is_ours as is_ours
from multimodal_zoo.messages import sentence


def message(error: BaseException) -> str:
    """One readable line or more for an error of ours."""
    return f"mmzoo: {sentence(error)}\n(MMZOO_TRACEBACK=1 shows where)"
