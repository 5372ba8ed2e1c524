"""What commands say of the machine: `device` and `threads`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Asked for a million, torch ends the process by a segmentation fault.
MOST_THREADS = 1024


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
        ValueError: fewer than one, no whole number, or more than `MOST_THREADS`.
    """
    import torch

    if threads is None:
        return
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
        raise ValueError(
            f"threads={threads}: expected 1 to {MOST_THREADS} of the processor, or null for torch's own choice"
        )
    torch.set_num_threads(threads)
