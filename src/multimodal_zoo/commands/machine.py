"""What commands say of the machine: `device` and `threads`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def device_of(device: str) -> torch.device:
    """The device that a command's `device` names.

    Raises:
        ValueError: one that torch does not know, or that is not here.
    """
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"device={device}: {said}; expected cpu, or cuda, cuda:1, ... of a GPU") from None
    return found


def use_threads(threads: int | None) -> None:
    """Let torch compute with so many threads of the processor; None leaves its own choice.

    Raises:
        ValueError: fewer than one, or no whole number.
    """
    import torch

    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads={threads}: expected 1 or more of the processor, or null for torch's own choice")
    torch.set_num_threads(threads)
