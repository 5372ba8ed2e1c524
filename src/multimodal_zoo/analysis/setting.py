"""How a model trains, in the words of the configuration, and what each word costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from multimodal_zoo.analysis.shadow import DECLARED
from multimodal_zoo.nn.transformer import CHECKPOINT_POLICIES


class Precision(NamedTuple):
    """What one of Lightning's precision names stands for.

    Attributes:
        weight: dtype of the weights.
        compute: dtype that mixed precision computes in, or None.
    """

    weight: torch.dtype
    compute: torch.dtype | None = None


PRECISIONS: dict[str, Precision] = {
    "32-true": Precision(torch.float32),
    "16-mixed": Precision(torch.float32, torch.float16),
    "bf16-mixed": Precision(torch.float32, torch.bfloat16),
    "16-true": Precision(torch.float16),
    "bf16-true": Precision(torch.bfloat16),
}


class Strategy(NamedTuple):
    """What one of the strategies does.

    Attributes:
        shared: what the devices share out among themselves instead of each holding all of it.
        computes_in_half: under mixed precision the weights that a device computes with are in half precision, so that
            no copies are kept beside them.
        master: under mixed precision the shared float32 weights belong to the optimiser, and gradients are in half
            precision (ZeRO, arXiv 1910.02054).
    """

    shared: frozenset[str] = frozenset()
    computes_in_half: bool = False
    master: bool = False


_ALL = frozenset({"weights", "gradients", "optimizer"})
#: The stages of ZeRO have Lightning's names.
STRATEGIES: dict[str, Strategy] = {
    "single": Strategy(),
    "ddp": Strategy(),
    "fsdp": Strategy(_ALL, computes_in_half=True),
    "deepspeed_stage_1": Strategy(frozenset({"optimizer"}), computes_in_half=True, master=True),
    "deepspeed_stage_2": Strategy(frozenset({"gradients", "optimizer"}), computes_in_half=True, master=True),
    "deepspeed_stage_3": Strategy(_ALL, computes_in_half=True, master=True),
}
#: States that an optimiser keeps for each trainable weight: of a matrix or convolution, of anything smaller. `sgd` has
#: momentum, as in `optim=sgd`; what groups with `fallback: true` keep more under `muon` is not counted.
OPTIMIZER_STATES = {
    "sgd": (1, 1),
    "muon": (1, 2),
    "lion": (1, 1),
    "adam": (2, 2),
    "adamw": (2, 2),
    "lamb": (2, 2),
    "eva_lamb": (2, 2),
    "declip_adamw": (2, 2),
    "eve_adamw": (2, 2),
    "emu_adamw": (2, 2),
    "emu2_adamw": (2, 2),
    "drawing_adamw": (2, 2),
    "fast_bev_adamw": (2, 2),
    "emu_adapters": (2, 2),
    "declip_sgd": (1, 1),
}


@dataclass(frozen=True)
class Setting:
    """How a model trains.

    Args:
        batch_size: samples per device and step; of anything but a dual encoder one, if left out on a command line.
        devices: how many devices share the work.
        strategy: single, ddp, fsdp or deepspeed_stage_1 to _3; the first of these is what `trainer=deepspeed` runs as
            it is.
        precision: 32-true, bf16-mixed or another of `trainer.precision`.
        checkpoint: what all stacks recompute: none, block or around_attention, as their own `checkpoint`; or declared,
            which leaves each its own.
        optimizer: as in `optim=`, a file of conf/optim.

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
            ("checkpoint", (*CHECKPOINT_POLICIES, DECLARED)),
            ("optimizer", OPTIMIZER_STATES),
        ):
            if getattr(self, key) not in words:
                raise ValueError(f"{key}={getattr(self, key)!r} is not known; it takes {', '.join(words)}")
        if self.batch_size < 1 or self.devices < 1:
            raise ValueError(f"batch_size={self.batch_size}, devices={self.devices}: both must be at least 1")
        if self.strategy == "single" and self.devices > 1:
            raise ValueError(f"devices={self.devices} under strategy='single': it takes 1; try ddp or fsdp")
