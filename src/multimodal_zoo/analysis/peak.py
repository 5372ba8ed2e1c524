"""The most memory that a training step holds at one time beside weights and gradients, found without running it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from multimodal_zoo.analysis.shadow import ReadZeros, recompute_by, shadow


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that were made while it is active and are still alive.

    Attributes:
        live: bytes now.
        peak: the most so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the operator and count the storages that are new."""
        given = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and id(tensor.untyped_storage()) not in given:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) in self._known:
            return
        size = storage.nbytes()
        self._known.add(id(storage))
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, id(storage), size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def step_peak(
    model: nn.Module,
    inputs: Callable[[], tuple[Tensor, ...]],
    *,
    checkpoint: str = "none",
    autocast: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Bytes at the fullest moment of forward and backward: what is kept, and what the layer at work needs.

    The step runs on fake tensors, which choose the kernels of a CPU and carry shapes only. Gradients of weights are
    there from the start and not counted; the objective is not part of the step.

    Args:
        model: on any device, meta included; copied without its data.
        inputs: makes the arguments of a step, with torch's factory functions on the CPU, in float32.
        checkpoint: the policy of every stack (`nn.transformer.CHECKPOINT_POLICIES`).
        autocast: the dtype of mixed precision, or None.
        dtype: of the weights and, where it is a half, of the inputs.
    """
    with FakeTensorMode():
        ghost = shadow(model, lambda t: torch.empty(t.shape, dtype=dtype if t.is_floating_point() else t.dtype))
        ghost.train()
        recompute_by(ghost, checkpoint)
        for parameter in ghost.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        arguments = tuple(t.to(dtype) if t.is_floating_point() else t for t in inputs())
        precision = torch.autocast("cpu", autocast) if autocast is not None else nullcontext()
        with ReadZeros(), LiveBytes() as memory:
            with precision:
                results = tree_leaves(ghost(*arguments))
            roots = [result for result in results if isinstance(result, Tensor) and result.requires_grad]
            del results
            if roots:
                torch.autograd.backward(roots, [torch.empty_like(root) for root in roots])
        return memory.peak
