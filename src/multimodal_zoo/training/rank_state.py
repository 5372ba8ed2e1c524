"""State that each process of a data-parallel run has for itself: a queue of the features that it saw, say.

A module of the objective names such buffers in `rank_buffers`. They are not made equal among the processes, and a
checkpoint holds those of every process.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch import distributed as dist

from multimodal_zoo.nn.processes import rank, world_size


def rank_buffers(module: nn.Module, attribute: str = "rank_buffers") -> dict[str, Tensor]:
    """The buffers that `module` or a part of it names in an attribute, by their full names.

    Args:
        module: an objective.
        attribute: `rank_buffers` for those that each process has for itself, `alike_buffers` for those that every
            process keeps equal to the others' by itself.

    Raises:
        AttributeError: a part names a buffer that it does not have.
    """
    found = {}
    for prefix, part in module.named_modules():
        names: Iterable[str] = getattr(part, attribute, ())
        found.update({f"{prefix}.{name}".lstrip("."): part.get_buffer(name) for name in names})
    return found


class RankState(Callback):
    """Keeps every rank's own buffers of the objective in the checkpoint, and gives each rank its own back.

    Args:
        elastic: whether a run may go on with another number of processes: they take the stored buffers in turn.
    """

    def __init__(self, elastic: bool = False) -> None:
        self.elastic = elastic
        self._pending: dict[str, Tensor] = {}

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the buffers of all ranks; with one process the ordinary state holds them."""
        if world_size() > 1:
            own = rank_buffers(pl_module.objective)  # type: ignore[arg-type]
            checkpoint["rank_buffers"] = {name: collect(buffer) for name, buffer in own.items()}

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember this rank's until training starts, when every strategy has restored the rest.

        Raises:
            ValueError: the checkpoint was written by another number of processes.
        """
        stored = checkpoint.get("rank_buffers") or {}
        for name in stored or rank_buffers(pl_module.objective):  # type: ignore[arg-type]
            written = len(stored[name]) if stored else 1
            if written != world_size() and not self.elastic:
                processes = "1 process" if written == 1 else f"{written} processes"
                raise ValueError(
                    f"resume: the checkpoint holds {name} of {processes} and this run has {world_size()}; "
                    "an exact continuation needs as many (trainer.devices, trainer.num_nodes), elastic=true gives each "
                    "process one of those that there are"
                )
        self._pending = {name: values[rank() % len(values)] for name, values in stored.items()}
        stored.clear()  # the others' need no memory

    @torch.no_grad()
    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put this rank's own values back."""
        own = rank_buffers(pl_module.objective)  # type: ignore[arg-type]
        for name, value in self._pending.items():
            own[name].copy_(value)
        self._pending = {}


def collect(tensor: Tensor) -> list[Tensor]:
    """A tensor of every rank, in rank order, on the CPU of rank 0; an empty list elsewhere. All ranks must call it.

    One rank after the other, so that no device holds more than one of them beside its own.
    """
    tensor, parts = tensor.detach().contiguous(), []
    for source in range(world_size()):
        part = tensor.clone() if source == rank() else torch.empty_like(tensor)
        dist.broadcast(part, source)
        if rank() == 0:
            parts.append(part.cpu())
    return parts
