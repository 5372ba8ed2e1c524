"""What may be done with tensors: looking at their values, and plain arithmetic where that is faster."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def may_look(tensor: Tensor) -> bool:
    """Whether there are values that a check may look at.

    On an accelerator every step would have to wait for them, and a compiler has none.
    """
    return tensor.device.type == "cpu" and tensor.numel() > 0 and not torch.compiler.is_compiling()


def plain_step(x: Tensor, weight: Tensor) -> bool:
    """Whether a layer may compute as suits the few rows of a decoding step on a CPU: plain float32, no gradient wanted.

    A quantised or sharded weight multiplies in its own way, and so do autocast and a compiler. Ask before rows are
    counted: a compiler would make one graph for few of them and another for many.
    """
    return (
        not torch.is_grad_enabled()
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and x.device.type == "cpu"
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def outside(numbers: Tensor, count: int) -> tuple[int, int] | None:
    """The lowest and the highest of some integers, where not all of them are 0 to `count - 1`.

    Args:
        numbers: integers of any shape.
        count: how many there are to choose from.

    Returns:
        None where all are inside, and where nobody may look.
    """
    if not may_look(numbers):
        return None
    low, high = (int(value) for value in numbers.aminmax())
    return (low, high) if low < 0 or high >= count else None
