"""Exponential moving average of the weights, also when they are sharded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import distribute_tensor

from multimodal_zoo.training.sharding import gathered, local
from multimodal_zoo.training.steps import StepEnds


class Ema(Callback):
    """Averages the model after every optimiser step: `average += (1 - d) * (weights - average)`.

    Validation, the sample sheet, the final evaluation and the exported model use the average; checkpoints hold both,
    the average under the key `ema`. Floating-point buffers are averaged too, others are copied.

    Args:
        decay: d, once the ramp is over.
        ramp: d at update t is at most (1 + t) / (ramp + t), so that a short run forgets its random start; 1 means
            no ramp.
    """

    def __init__(self, decay: float = 0.999, ramp: float = 10.0) -> None:
        if not 0 <= decay < 1 or ramp < 1:
            raise ValueError(f"callbacks.ema: decay is {decay} and ramp {ramp}; need 0 <= decay < 1 and ramp >= 1")
        self.decay = decay
        self.ramp = ramp
        self.updates = 0
        self.average: dict[str, Tensor] | None = None
        self._ends = StepEnds()
        self._pending: Mapping[str, Any] | None = None
        self._swapped = False

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start from the weights, or from what a checkpoint held."""
        weights = _state(pl_module)
        self.average = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self._ends.begin(trainer)
        if self._pending is not None:
            self.updates = self._pending["updates"]
            for name, saved in self._pending["weights"].items():
                mine = self.average[name]
                mesh = getattr(mine, "device_mesh", None)
                part = saved.to(mine.device)
                if mesh is not None:
                    part = distribute_tensor(part, mesh, mine.placements)
                local(mine).copy_(local(part))
            self._pending = None

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update after an optimiser step; batches that only accumulate gradients change nothing."""
        if not self._ends.over(trainer) or self.average is None:
            return
        decay = min(self.decay, (1 + self.updates) / (self.ramp + self.updates))
        self.updates += 1
        averages, weights = [], []
        for name, tensor in _state(pl_module).items():
            if tensor.is_floating_point():
                averages.append(local(self.average[name]))
                weights.append(local(tensor.detach()))
            else:
                self.average[name].copy_(tensor)
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the average, every tensor whole."""
        if self.average is not None:
            weights = gathered(self.average, keep=trainer.is_global_zero)  # the other processes' is not written
            checkpoint["ema"] = {"updates": self.updates, "weights": weights}

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the saved average until training starts; without one the average starts at the weights."""
        self._pending = checkpoint.get("ema")

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Validate the average."""
        if self.average is not None and not trainer.sanity_checking:
            self._swap(pl_module)
            self._swapped = True

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go on with the weights."""
        if self._swapped:
            self._swap(pl_module)
            self._swapped = False

    @contextmanager
    def applied(self, pl_module: lightning.LightningModule) -> Iterator[None]:
        """A context in which the module's model holds the average."""
        if self.average is None or self._swapped:
            yield
            return
        self._swap(pl_module)
        try:
            yield
        finally:
            self._swap(pl_module)

    @torch.no_grad()
    def _swap(self, pl_module: lightning.LightningModule) -> None:
        assert self.average is not None
        done: dict[int, Tensor] = {}
        for name, tensor in _state(pl_module).items():
            mine, theirs = local(self.average[name]), local(tensor)
            if theirs.data_ptr() in done:  # a tied weight has two names, and is swapped once
                mine.copy_(done[theirs.data_ptr()])
                continue
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)
            if theirs.numel():
                done[theirs.data_ptr()] = mine


def _state(pl_module: lightning.LightningModule) -> dict[str, Tensor]:
    model = pl_module.model
    assert isinstance(model, nn.Module)
    return model.state_dict()


def find_ema(trainer: lightning.Trainer) -> Ema | None:
    """The trainer's average, if it keeps one."""
    return next((c for c in trainer.callbacks if isinstance(c, Ema)), None)  # type: ignore[attr-defined]
