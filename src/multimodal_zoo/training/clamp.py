"""Keeps a parameter between two bounds, by force, after each optimiser step."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from multimodal_zoo.training.sharding import local


class Clamp(Callback):
    """Sets what left its bounds back to them, as the published code of CLIP and EVA-CLIP does with the temperature.

    `logit_scale` itself never acts above its maximum, but its parameter may drift beyond, and has no lower bound; with
    this the parameter stays inside, as in the published runs.

    Args:
        name: the parameter's name in the model.
        lowest: lower bound.
        highest: upper bound.

    Raises:
        ValueError: a lower bound above the upper one.
    """

    def __init__(self, name: str, lowest: float, highest: float) -> None:
        if lowest > highest:
            raise ValueError(f"clamp of {name}: lowest is {lowest}, above highest, {highest}")
        self.name, self.lowest, self.highest = name, lowest, highest

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Make sure that the parameter exists.

        Raises:
            ValueError: it does not.
        """
        names = dict(pl_module.model.named_parameters())  # type: ignore[union-attr, operator]
        if self.name not in names:
            raise ValueError(f"callbacks: clamp names {self.name!r}, the model has {', '.join(list(names)[-4:])}, ...")

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Clamp it."""
        parameter = pl_module.model.get_parameter(self.name)  # type: ignore[union-attr, operator]
        with torch.no_grad():
            local(parameter).clamp_(self.lowest, self.highest)
