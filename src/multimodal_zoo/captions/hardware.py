"""Where a model of this process runs: its device and type of weights, and work in portions that fit into the memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")
T = TypeVar("T")
R = TypeVar("R")


def device_of(device: str, part: str) -> str:
    """The torch device that a configuration means: auto is a GPU where there is one.

    Args:
        device: auto, or a torch device.
        part: whose `device` it is, for errors: `fusion_engine` or `captioner`.

    Raises:
        ValueError: a device that torch does not know, or that is not here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise ValueError(f"{part}.device is {device!r}; expected auto, cpu, cuda or cuda:NUMBER") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{part}.device is {device!r}, and torch finds no GPU here")
    return device


def dtype_of(dtype: str, device: str, part: str) -> str:
    """The type of weights that a configuration means: auto is bfloat16 on a GPU and float32 on a CPU.

    Args:
        dtype: auto, or one of `DTYPES`.
        device: from `device_of`.
        part: whose `dtype` it is, for errors.

    Raises:
        ValueError: another type.
    """
    if dtype == "auto":
        return "float32" if device == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise ValueError(f"{part}.dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    return dtype


class Portions:
    """Work on many items, a portion of them at once: one that does not fit into memory is halved.

    Args:
        most: items of a portion.

    Attributes:
        most: the same, or what fitted last.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def done(
        self, items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]]
    ) -> Iterator[tuple[Sequence[T], Sequence[R] | None]]:
        """Portions with what was made of them, in order; None for a single item that does not fit.

        Args:
            items: all of them.
            work: makes something of each item of a portion.
        """
        start = 0
        while start < len(items):
            portion = items[start : start + self.most]
            made = _within_memory(work, portion)
            if made is None and len(portion) > 1:
                self.most = (len(portion) + 1) // 2
                logger.warning("no memory for %d at once; going on with %d", len(portion), self.most)
                continue
            start += len(portion)
            yield portion, made


def _within_memory(work: Callable[[Sequence[T]], Sequence[R]], portion: Sequence[T]) -> Sequence[R] | None:
    """What is made of a portion; None where there is no memory for it."""
    try:
        return work(portion)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    free_memory()  # here the error, and with it all that it holds on to, is gone
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the processor or of an accelerator, is used up."""
    import torch

    said = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(text in str(error) for text in said)


def free_memory() -> None:
    """Give what an accelerator's allocator keeps for later back."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
