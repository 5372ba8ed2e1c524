"""Keeps parameters between two bounds, by force."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from multimodal_zoo.training.sharding import local


class Clamp(Callback):
    """Sets what left its bounds back to them, as the code of CLIP, EVA-CLIP and DeCLIP does with temperatures.

    `logit_scale` itself never acts above its maximum, but its parameter may drift beyond, and has no lower bound; with
    this the parameter stays inside, as in the published runs. DeCLIP's code clamps before the backward pass too, which
    only tells where the first value lies outside.

    Args:
        name: the parameter's name in the model, or several names.
        lowest: lower bound; None is no bound.
        highest: upper bound; None is no bound.

    Raises:
        ValueError: no name, or a lower bound above the upper one.
    """

    def __init__(self, name: str | Sequence[str], lowest: float | None, highest: float | None) -> None:
        self.names = [name] if isinstance(name, str) else list(name)
        if not self.names:
            raise ValueError("callbacks: clamp.name is an empty list; give a parameter, callbacks.clamp=null has none")
        if lowest is not None and highest is not None and lowest > highest:
            raise ValueError(f"clamp of {', '.join(self.names)}: lowest is {lowest}, above highest, {highest}")
        self.lowest, self.highest = lowest, highest

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Make sure that the parameters exist.

        Raises:
            ValueError: one does not.
        """
        known = dict(pl_module.model.named_parameters())  # type: ignore[union-attr, operator]
        for name in self.names:
            if name not in known:
                raise ValueError(f"callbacks: clamp names {name!r}, the model has {', '.join(list(known)[-4:])}, ...")

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        """Clamp what the model started with."""
        self.clamp(pl_module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Clamp what the optimiser made."""
        self.clamp(pl_module)

    def clamp(self, pl_module: lightning.LightningModule) -> None:
        """Put every parameter back between its bounds."""
        if self.lowest is None and self.highest is None:
            return
        for name in self.names:
            parameter = pl_module.model.get_parameter(name)  # type: ignore[union-attr, operator]
            local(parameter.data).clamp_(self.lowest, self.highest)  # `data`: the loss may still hold the parameter
