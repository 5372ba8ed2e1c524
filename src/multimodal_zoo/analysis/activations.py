"""Memory that a forward pass keeps for the backward pass, found without running it.

The forward runs on fake tensors, which choose the same kernels as a CPU does (fused attention among them) and carry
shapes only; autograd's hooks report what would be kept. Each storage counts once, parameters never.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from multimodal_zoo.analysis.shadow import ReadZeros, recompute_by, shadow
from multimodal_zoo.nn.repeated import blocks_of


@dataclass(frozen=True)
class Kept:
    """Bytes kept for the backward pass.

    Attributes:
        outside: by everything that is not inside a repeated block.
        inside: by each repeated block, its input included.
        inputs: the input of each repeated block.
    """

    outside: int
    inside: tuple[int, ...]
    inputs: tuple[int, ...]

    @property
    def total(self) -> int:
        """Bytes without activation checkpointing."""
        return self.outside + sum(self.inside)


class SavedTensors:
    """Context manager: records, once each, the storages that autograd keeps while it is active.

    Args:
        model: its parameters do not count; its repeated blocks count apart.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._seen: dict[int, torch.UntypedStorage] = {}
        self._owned = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
        self._blocks = [block for _, block in blocks_of(model)]
        self._inside = [0] * len(self._blocks)
        self._inputs = [0] * len(self._blocks)
        self._outside = 0
        self._current: int | None = None
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> SavedTensors:
        for i, block in enumerate(self._blocks):
            self._handles.append(block.register_forward_pre_hook(self._entering(i)))
            self._handles.append(block.register_forward_hook(self._leaving))
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
        for handle in self._handles:
            handle.remove()
        self._seen.clear()

    @property
    def kept(self) -> Kept:
        """What was recorded so far."""
        return Kept(self._outside, tuple(self._inside), tuple(self._inputs))

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._owned and storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage  # held, so that no later storage gets its address
            if self._current is None:
                self._outside += storage.nbytes()
            else:
                self._inside[self._current] += storage.nbytes()
        return tensor

    def _entering(self, number: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def enter(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            """Note which block begins and how large its input is."""
            self._current = number
            self._inputs[number] = arguments[0].untyped_storage().nbytes()

        return enter

    def _leaving(self, module: nn.Module, arguments: object, result: object) -> None:
        self._current = None


def kept_by(model: nn.Module, inputs: Callable[[], tuple[Tensor, ...]], autocast: torch.dtype | None = None) -> Kept:
    """Bytes that `model(*inputs())` keeps for its backward pass; nothing is computed or allocated.

    Args:
        model: on any device, meta included; copied without its data.
        inputs: makes the arguments, with torch's factory functions on the CPU.
        autocast: the dtype of mixed precision, or None.
    """
    with FakeTensorMode():
        ghost = shadow(model, lambda t: torch.empty(t.shape, dtype=t.dtype))
        ghost.train()
        recompute_by(ghost, "none")
        precision = torch.autocast("cpu", autocast) if autocast is not None else nullcontext()
        with ReadZeros(), precision, SavedTensors(ghost) as saved:
            ghost(*inputs())
            return saved.kept
