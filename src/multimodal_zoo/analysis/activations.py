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

from multimodal_zoo.analysis.shadow import ReadZeros, blocks_of, shadow


@dataclass(frozen=True)
class Kept:
    """Bytes kept for the backward pass.

    Attributes:
        outside: by everything that is not inside a repeated block.
        inside: by each repeated block, its input included.
        inputs: the input of each repeated block, which is all that activation checkpointing keeps of it.
    """

    outside: int
    inside: tuple[int, ...]
    inputs: tuple[int, ...]

    @property
    def total(self) -> int:
        """Bytes without activation checkpointing."""
        return self.outside + sum(self.inside)

    @property
    def checkpointed(self) -> int:
        """Peak bytes if every block is computed again in the backward pass: all inputs and one block's inside."""
        extra = max((a - b for a, b in zip(self.inside, self.inputs, strict=True)), default=0)
        return self.outside + sum(self.inputs) + max(extra, 0)


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
        for part in ghost.modules():
            if isinstance(getattr(part, "checkpoint", None), str):
                part.checkpoint = "none"  # type: ignore[assignment]
        precision = torch.autocast("cpu", autocast) if autocast is not None else nullcontext()
        with ReadZeros(), precision, SavedTensors(ghost) as saved:
            ghost(*inputs())
            return saved.kept


@dataclass(frozen=True)
class Activations:
    """Activation memory as a straight line over the batch size.

    Attributes:
        fixed: bytes that do not depend on the batch (weights cast to half precision, tables).
        per_sample: bytes per sample.
    """

    fixed: int
    per_sample: int

    def at(self, batch_size: int) -> int:
        """Bytes for a batch."""
        return self.fixed + self.per_sample * batch_size


def activations(
    model: nn.Module,
    inputs: Callable[[int], tuple[Tensor, ...]],
    *,
    checkpointing: bool = False,
    autocast: torch.dtype | None = None,
) -> Activations:
    """The activation memory of a training forward, objective not included.

    Args:
        model: on any device, meta included.
        inputs: makes the arguments for a batch size.
        checkpointing: whether each repeated block is computed again in the backward pass.
        autocast: the dtype of mixed precision, or None.
    """
    few, many = (kept_by(model, lambda size=size: inputs(size), autocast) for size in (2, 4))  # type: ignore[misc]
    low, high = (kept.checkpointed if checkpointing else kept.total for kept in (few, many))
    slope = (high - low) // 2
    return Activations(fixed=max(low - 2 * slope, 0), per_sample=slope)
