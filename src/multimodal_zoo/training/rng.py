"""Random state of torch, numpy and Python: captured, restored, kept in checkpoints."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from multimodal_zoo.nn.processes import each_one, rank, world_size


def snapshot() -> tuple[Any, ...]:
    """The state of every generator as it comes, cheap enough for every step; `pack` makes it fit for a file."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return torch.get_rng_state(), cuda, np.random.get_state(legacy=True), random.getstate()


def pack(taken: tuple[Any, ...]) -> dict[str, Any]:
    """A snapshot in types that `torch.load(weights_only=True)` reads."""
    cpu, cuda, (kind, keys, *rest), (version, words, gauss) = taken
    return {
        "torch": cpu,
        "cuda": cuda,
        "numpy": {
            "kind": str(kind),
            "keys": torch.tensor(np.asarray(keys, dtype=np.int64)),
            "rest": [float(x) for x in rest],
        },
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
    }


def capture() -> dict[str, Any]:
    """The state of every generator now."""
    return pack(snapshot())


def restore(state: Mapping[str, Any]) -> None:
    """Put every generator back to a captured state."""
    torch.set_rng_state(state["torch"])
    for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(generator, device)
    position, has_gauss, gauss = state["numpy"]["rest"]
    keys = state["numpy"]["keys"].numpy().astype(np.uint32)
    np.random.set_state((state["numpy"]["kind"], keys, int(position), int(has_gauss), gauss))
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))


class RandomState(Callback):
    """Keeps every rank's random state in the checkpoint and keeps validation from touching it.

    A resumed run starts its next step with exactly the state that the uninterrupted run had there: what data loaders
    draw while they start is undone in both. Each rank starts from a seed of its own, so that its dropout is its own.

    Args:
        seed: the recipe's seed.
        elastic: whether a run may go on with another number of processes: each takes the stream of its number, and
            further ones begin theirs.
    """

    def __init__(self, seed: int, elastic: bool = False) -> None:
        self.seed, self.elastic = seed, elastic
        self._pending: Mapping[str, Any] | None = None
        self._before_validation: Mapping[str, Any] | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """In a fresh run give each rank its own stream."""
        if self._pending is None:
            for generator in (torch.manual_seed, np.random.seed, random.seed):
                generator(self.seed + trainer.global_rank)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the state: a data loader that starts draws from torch's generator."""
        if self._pending is None:
            self._pending = capture()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Take it back, or what a checkpoint held, once the loader runs."""
        if self._pending is not None:
            restore(self._pending)
            self._pending = None

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the state of all ranks."""
        checkpoint["random_states"] = each_one(capture())

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember this rank's state until training starts.

        Raises:
            ValueError: the checkpoint was written by another number of processes.
        """
        states = checkpoint.get("random_states")
        if states is None:
            return
        if len(states) != world_size() and not self.elastic:
            raise ValueError(
                f"resume: the checkpoint was written by {len(states)} processes and this run has {world_size()}; an "
                "exact continuation needs as many (trainer.devices, trainer.num_nodes), elastic=true goes on with "
                "other random numbers"
            )
        self._pending = states[rank()] if rank() < len(states) else None

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put training's state aside."""
        self._before_validation = capture()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take it back."""
        if self._before_validation is not None:
            restore(self._before_validation)
            self._before_validation = None
