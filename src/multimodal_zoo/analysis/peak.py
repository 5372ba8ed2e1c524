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
from multimodal_zoo.analysis.thinning import inner_blocks, thinned


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that were made while it is active and are still alive.

    Attributes:
        live: bytes now.
        spans: what is going on now, as marked from outside.
        peaks: the most so far, by what was going on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.spans: frozenset[str] = frozenset()
        self.peaks: dict[frozenset[str], int] = {self.spans: 0}
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
        self.peaks[self.spans] = max(self.peaks.get(self.spans, 0), self.live)
        weakref.finalize(storage, self._forget, id(storage), size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class Repeats:
    """Lets the one inner block of a thinned stack stand for many.

    From the start of its forward pass to the end of its backward pass, the fullest moment of a step of the whole model
    is that of the thin one and what all the other inner blocks keep: in the forward pass the last of them runs while
    the others have run, in the backward pass it runs while the others are still to run.

    Args:
        model: thinned, with one inner block in each of the stacks.
        inner: how many it stands for, by the stack's name.
        memory: counts the step.
    """

    def __init__(self, model: nn.Module, inner: Mapping[str, int], memory: LiveBytes) -> None:
        self.inner, self.memory = inner, memory
        self.kept: dict[str, int] = {}
        self.exact = True
        self._before: dict[str, int] = {}
        for name in inner:
            layers = model.get_submodule(name).layers
            layers[1].register_forward_pre_hook(self._opens(name))  # type: ignore[index, union-attr]
            layers[2].register_forward_pre_hook(self._goes_on(name))  # type: ignore[index, union-attr]

    @property
    def peak(self) -> int:
        """The most bytes of the whole model's step; only if `exact`."""
        more = {name: (count - 1) * self.kept.get(name, 0) for name, count in self.inner.items()}
        return max(peak + sum(more[name] for name in spans) for spans, peak in self.memory.peaks.items())

    def _opens(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def close(gradient: Tensor) -> None:
            """The gradient of the block's input is there: its backward pass is over."""
            self.memory.spans -= {name}

        def opens(block: nn.Module, arguments: tuple[Any, ...]) -> None:
            """Begin once; a block that is recomputed is entered again."""
            if name in self._before:
                return
            self._before[name] = self.memory.live
            self.memory.spans |= {name}
            if arguments[0].requires_grad:
                arguments[0].register_hook(close)
            elif any(parameter.requires_grad for parameter in block.parameters()):
                self.exact = False  # nothing tells when its backward pass is over

        return opens

    def _goes_on(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def goes_on(block: nn.Module, arguments: tuple[Any, ...]) -> None:
            """What the inner block has kept."""
            self.kept.setdefault(name, self.memory.live - self._before[name])

        return goes_on


def step_peak(
    model: nn.Module,
    inputs: Callable[[], tuple[Tensor, ...]],
    *,
    checkpoint: str = "none",
    autocast: torch.dtype | None = None,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Bytes at the fullest moment of forward and backward: what is kept, and what the layer at work needs.

    The step runs on fake tensors, which choose the kernels of a CPU and carry shapes only; of blocks that are alike one
    is run and stands for all (`Repeats`). Gradients of weights are
    there from the start and not counted; the objective is not part of the step.

    Args:
        model: on any device, meta included; copied without its data.
        inputs: makes the arguments of a step, with torch's factory functions on the CPU, in float32.
        checkpoint: the policy of every stack (`nn.transformer.CHECKPOINT_POLICIES`).
        autocast: the dtype of mixed precision, or None.
        dtype: of the weights and, where it is a half, of the inputs.
    """
    inner = inner_blocks(model)
    for stacks in (inner, {}) if inner else ({},):
        thin = thinned(model, dict.fromkeys(stacks, 1))
        with FakeTensorMode():
            ghost = shadow(thin, lambda t: torch.empty(t.shape, dtype=dtype if t.is_floating_point() else t.dtype))
            ghost.train()
            recompute_by(ghost, checkpoint)
            memory = LiveBytes()
            repeats = Repeats(ghost, stacks, memory)
            _step(ghost, tuple(t.to(dtype) if t.is_floating_point() else t for t in inputs()), memory, autocast)
        if repeats.exact:
            break
    return repeats.peak


def _step(model: nn.Module, arguments: tuple[Tensor, ...], memory: LiveBytes, autocast: torch.dtype | None) -> None:
    """Forward and backward of a copy on fake tensors."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)
    precision = torch.autocast("cpu", autocast) if autocast is not None else nullcontext()
    with ReadZeros(), memory:
        with precision:
            results = tree_leaves(model(*arguments))
        roots = [result for result in results if isinstance(result, Tensor) and result.requires_grad]
        del results
        if roots:
            torch.autograd.backward(roots, [torch.empty_like(root) for root in roots])
