"""Memory of weights, gradients and optimiser states per device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from multimodal_zoo.analysis.shadow import blocks_of

#: Lightning's precision names: bytes of a weight, and the dtype that mixed precision computes in.
PRECISIONS: dict[str, tuple[int, torch.dtype | None]] = {
    "32-true": (4, None),
    "16-mixed": (4, torch.float16),
    "bf16-mixed": (4, torch.bfloat16),
    "16-true": (2, None),
    "bf16-true": (2, None),
}
#: States that an optimiser keeps for each trainable weight: of a matrix or convolution, of anything smaller. `sgd` has
#: momentum, as in `optim=sgd`; what groups with `fallback: true` keep more under `muon` is not counted.
OPTIMIZER_STATES = {"sgd": (1, 1), "muon": (1, 2), "lion": (1, 1), "adam": (2, 2), "adamw": (2, 2), "lamb": (2, 2)}
#: What the devices share out among themselves instead of each holding all of it. `deepspeed` is ZeRO stage 3.
STRATEGIES: dict[str, frozenset[str]] = {
    "single": frozenset(),
    "ddp": frozenset(),
    "fsdp": frozenset({"weights", "gradients", "optimizer"}),
    "deepspeed": frozenset({"weights", "gradients", "optimizer"}),
    "deepspeed_stage_1": frozenset({"optimizer"}),
    "deepspeed_stage_2": frozenset({"gradients", "optimizer"}),
}
CHECKPOINTS = ("none", "block")


@dataclass(frozen=True)
class PartSize:
    """Size of one part of a model.

    Attributes:
        name: the part's path in the model.
        parameters: number of weights; a tensor shared with an earlier part counts there only.
        trainable: how many of them train.
    """

    name: str
    parameters: int
    trainable: int


def parts_of(model: nn.Module, depth: int = 2) -> list[PartSize]:
    """Parameters by part, down to `depth` levels, in order; parts without parameters are left out."""
    seen: set[int] = set()
    found: list[PartSize] = []

    def visit(name: str, module: nn.Module, level: int) -> None:
        """Descend to the level wanted, then to what a module holds itself."""
        children = list(module.named_children())
        if level == depth or not children:
            add(name, module.parameters())
            return
        for child_name, child in children:
            visit(f"{name}.{child_name}".lstrip("."), child, level + 1)
        add(name or "(own)", module.parameters(recurse=False))

    def add(name: str, parameters: Iterable[nn.Parameter]) -> None:
        """Record the parameters that no earlier part holds."""
        new = [p for p in parameters if id(p) not in seen]
        seen.update(id(p) for p in new)
        if new:
            found.append(PartSize(name, sum(p.numel() for p in new), sum(p.numel() for p in new if p.requires_grad)))

    visit("", model, 0)
    return found


def inference_bytes(model: nn.Module) -> dict[str, int]:
    """Bytes of weights and buffers by format; activations of inference come on top and are small.

    `int8` means 8-bit matrices with one half-precision scale a row, the rest in half precision.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return {
        "float32": sum(_floating(t, 4) for t in tensors),
        "float16 / bfloat16": sum(_floating(t, 2) for t in tensors),
        "int8": sum(
            t.numel() + 2 * t.shape[0] if t.ndim > 1 and t.is_floating_point() else _floating(t, 2) for t in tensors
        ),
    }


def _floating(tensor: Tensor, size: int) -> int:
    return tensor.numel() * (size if tensor.is_floating_point() else tensor.element_size())


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device while training.

    Attributes:
        weights: the device's share of the weights, buffers included.
        gradients: its share of the gradients.
        optimizer: its share of the optimiser's states.
        communication: gradient buckets; where weights are shared out, the blocks that are whole at one time instead.
        activations: kept for the backward pass at the batch size per device; the gradients of the layer at work come
            on top.
    """

    weights: int
    gradients: int
    optimizer: int
    communication: int
    activations: int

    @property
    def total(self) -> int:
        """The sum; torch's allocator and the CUDA context come on top (commonly 1-2 GB)."""
        return self.weights + self.gradients + self.optimizer + self.communication + self.activations


@dataclass(frozen=True)
class Setting:
    """How a model trains.

    Args:
        batch_size: samples per device and step.
        devices: how many devices share the work.
        strategy: one of `STRATEGIES`; `deepspeed_stage_1` is what `trainer=deepspeed` runs as it is.
        precision: one of `PRECISIONS`, as in `trainer.precision`.
        checkpoint: one of `CHECKPOINTS`, as in a stack's `checkpoint`.
        optimizer: one of `OPTIMIZER_STATES`.

    Raises:
        ValueError: an unknown word, or several devices under `single`, with what is possible.
    """

    batch_size: int = 64
    devices: int = 1
    strategy: str = "single"
    precision: str = "32-true"
    checkpoint: str = "none"
    optimizer: str = "adamw"

    def __post_init__(self) -> None:
        for key, words in (
            ("strategy", STRATEGIES),
            ("precision", PRECISIONS),
            ("checkpoint", CHECKPOINTS),
            ("optimizer", OPTIMIZER_STATES),
        ):
            if getattr(self, key) not in words:
                raise ValueError(f"{key}={getattr(self, key)!r} is not known; it takes {', '.join(words)}")
        if self.batch_size < 1 or self.devices < 1:
            raise ValueError(f"batch_size={self.batch_size}, devices={self.devices}: both must be at least 1")
        if self.strategy == "single" and self.devices > 1:
            raise ValueError(f"devices={self.devices} under strategy='single': it takes 1; try ddp or fsdp")


def training_bytes(model: nn.Module, activations: int, setting: Setting) -> TrainingMemory:
    """Memory of one device.

    Args:
        model: on any device; `requires_grad` says what trains.
        activations: bytes kept for the backward pass on one device.
        setting: how it trains.
    """
    size, devices = PRECISIONS[setting.precision][0], setting.devices
    weights = sum(p.numel() for p in model.parameters()) * size
    trainable = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numel() for p in trainable) * size
    of_matrix, of_rest = OPTIMIZER_STATES[setting.optimizer]
    states = sum(p.numel() * (of_matrix if p.ndim > 1 else of_rest) for p in trainable) * size
    shared = STRATEGIES[setting.strategy]
    if devices == 1:
        communication = 0
    elif "weights" in shared:
        communication = 2 * _largest_unit(model) * size  # the unit at work and the one fetched ahead
    else:
        communication = gradients
    return TrainingMemory(
        weights=_share(weights, devices if "weights" in shared else 1)
        + sum(_floating(b, size) for b in model.buffers()),
        gradients=_share(gradients, devices if "gradients" in shared else 1),
        optimizer=_share(states, devices if "optimizer" in shared else 1),
        communication=communication,
        activations=activations,
    )


def _largest_unit(model: nn.Module) -> int:
    """Weights of the largest unit that is gathered at once: a block, or everything that is in no block."""
    sizes = [sum(p.numel() for p in block.parameters()) for _, block in blocks_of(model)]
    return max([*sizes, sum(p.numel() for p in model.parameters()) - sum(sizes)])


def _share(total: int, devices: int) -> int:
    return -(-total // devices)
