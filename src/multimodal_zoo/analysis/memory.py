"""Memory of weights, gradients and optimiser states per device."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from multimodal_zoo.analysis.peak import step_peak
from multimodal_zoo.analysis.setting import OPTIMIZER_STATES, PRECISIONS, STRATEGIES, Setting
from multimodal_zoo.nn.repeated import blocks_of

#: Numbers in one bucket of `trainer=deepspeed`; it reduces one while it fills another.
BUCKET = 500_000_000
#: Most devices that `fewest_devices` tries.
MOST_DEVICES = 4096
#: Share of a device's memory that a plan fills; the rest is the allocator's and the device context's.
USABLE = 0.9


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


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device while training.

    Attributes:
        weights: the device's share of the weights, buffers included.
        gradients: its share of the gradients.
        optimizer: its share of the optimiser's states, and of the float32 weights where these are the optimiser's.
        communication: gradient buckets; where weights are shared out, the blocks that are whole at one time instead.
        activations: the most that forward and backward hold beside the above at the batch size per device, without
            the objective.
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


def activation_bytes(model: nn.Module, inputs: Callable[[int], tuple[Tensor, ...]], setting: Setting) -> int:
    """The most that forward and backward of one device hold beside weights and gradients.

    Args:
        model: on any device, meta included.
        inputs: makes the arguments for a batch size, in float32.
        setting: how it trains.
    """
    weight, compute = PRECISIONS[setting.precision]
    if compute is not None and STRATEGIES[setting.strategy].computes_in_half:
        weight = compute
    return step_peak(
        model,
        lambda: inputs(setting.batch_size),
        checkpoint=setting.checkpoint,
        autocast=compute,
        dtype=weight,
    )


def training_bytes(model: nn.Module, activations: int, setting: Setting) -> TrainingMemory:
    """Memory of one device.

    Args:
        model: on any device; `requires_grad` says what trains.
        activations: bytes of `activation_bytes`.
        setting: how it trains.
    """
    strategy, devices = STRATEGIES[setting.strategy], setting.devices
    full, compute = PRECISIONS[setting.precision]
    master = strategy.master and compute is not None
    held = (compute if master and compute is not None else full).itemsize
    working = compute.itemsize if compute is not None and strategy.computes_in_half else full.itemsize
    trainable = [p for p in model.parameters() if p.requires_grad]
    count = sum(p.numel() for p in trainable)
    of_matrix, of_rest = OPTIMIZER_STATES[setting.optimizer]
    states = sum(p.numel() * (of_matrix if p.ndim > 1 else of_rest) for p in trainable) + (count if master else 0)
    if devices == 1:
        communication = 0
    elif "weights" in strategy.shared:  # the unit at work, the one fetched ahead, the gradients of one
        communication = _largest_unit(model, 2 * working, held)
    elif strategy.master:
        communication = min(count, 2 * BUCKET) * held
    else:
        communication = count * held

    def share(total: int, what: str) -> int:
        """A device's part of it."""
        return -(-total // devices) if what in strategy.shared else total

    return TrainingMemory(
        weights=share(sum(p.numel() for p in model.parameters()) * held, "weights")
        + sum(b.numel() * (held if b.is_floating_point() else b.element_size()) for b in model.buffers()),
        gradients=share(count * held, "gradients"),
        optimizer=share(states * full.itemsize, "optimizer"),
        communication=communication,
        activations=activations,
    )


def fewest_devices(model: nn.Module, activations: int, setting: Setting, device_memory: int) -> int | None:
    """How many devices training takes at least, or None if `MOST_DEVICES` are too few.

    Args:
        model: on any device.
        activations: bytes of `activation_bytes` at the setting's batch size per device.
        setting: how it trains; its number of devices does not matter, and `single` means one.
        device_memory: bytes of one device, of which `USABLE` are filled.
    """

    def fits(devices: int) -> bool:
        """Whether a device's share leaves the reserve free."""
        share = training_bytes(model, activations, replace(setting, devices=devices))
        return share.total <= USABLE * device_memory

    if fits(1) or setting.strategy == "single":
        return 1 if fits(1) else None
    counts = range(2, MOST_DEVICES + 1)  # from 2 on, more devices never need more memory each
    place = bisect_left(counts, True, key=fits)
    return counts[place] if place < len(counts) else None


def _largest_unit(model: nn.Module, weight: int, gradient: int) -> int:
    """Bytes of the largest unit that is gathered at once: a block, or everything that is in no block.

    Args:
        model: on any device.
        weight: bytes for each weight of a unit.
        gradient: bytes for each weight that trains, on top.
    """

    def size(part: nn.Module) -> int:
        """Bytes of all that a part holds."""
        return sum(p.numel() * (weight + gradient * p.requires_grad) for p in part.parameters())

    sizes = [size(block) for _, block in blocks_of(model)]
    return max([*sizes, size(model) - sum(sizes)])
