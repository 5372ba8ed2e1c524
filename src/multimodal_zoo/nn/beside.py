"""Frozen modules that stand beside one that trains: teachers, references, networks that measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

Owner = TypeVar("Owner", bound="WithFrozen")


class WithFrozen(nn.Module):
    """A module with a frozen one beside it, which is no submodule.

    Checkpoints, optimisers and data-parallel wrappers do not see it, its weights stay in the file that they come from.
    It follows its owner to devices and precisions.

    Args:
        beside: set to evaluation and frozen; None where there is none.
    """

    def __init__(self, beside: nn.Module | None) -> None:
        super().__init__()
        self._held = () if beside is None else (beside.eval().requires_grad_(False),)  # in a tuple torch sees no module

    @property
    def beside(self) -> Any:
        """The frozen module, or None."""
        return self._held[0] if self._held else None

    def _apply(self: Owner, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Owner:
        for one in self._held:
            one._apply(fn, recurse)
        return super()._apply(fn, recurse)  # type: ignore[misc]
