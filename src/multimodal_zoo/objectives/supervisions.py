"""A contrastive method as a weighted sum of supervisions: CLIP, SLIP, FILIP, DeCLIP, DeFILIP, or a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, cast

import torch
from torch import Tensor, nn

from multimodal_zoo.objectives.batch import ImageTextBatch, MultiViewBatch
from multimodal_zoo.objectives.views import Needs, Views
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder


class Supervision(Protocol):
    """One term of a method."""

    @property
    def needs(self) -> Needs:
        """What it reads of the views."""
        ...

    def check(self, model: DualEncoder) -> None:
        """Refuse a model that lacks what the term needs; raises ValueError with the key to change."""
        ...

    def __call__(self, views: Views) -> dict[str, Tensor]:
        """The term's "loss", a scalar, and detached metrics."""
        ...


@OBJECTIVES.register_module(name="supervised_contrast")
class SupervisedContrast(nn.Module):
    """The weighted sum of any supervisions (CLIP-benchmark, arXiv 2203.05796).

    Args:
        parts: name -> supervision; None leaves one out.
        weights: name -> factor of the part's loss. A factor of 0 computes and logs a term without training on it.

    Raises:
        ValueError: no part, a part without a weight, or a weight of nothing.
    """

    def __init__(self, parts: Mapping[str, nn.Module | None], weights: Mapping[str, float | None]) -> None:
        super().__init__()
        if strange := sorted(weights.keys() - parts.keys()):
            raise ValueError(f"objective.weights names {strange}; objective.parts has {sorted(parts)}")
        self.parts = nn.ModuleDict({name: part for name, part in parts.items() if part is not None})
        if not len(self.parts):
            raise ValueError("objective.parts is empty: an objective needs at least one supervision")
        known = {name: float(weight) for name, weight in weights.items() if weight is not None}
        if missing := [name for name in self.parts if name not in known]:
            raise ValueError(
                f"objective.weights has nothing for {missing}: set objective.weights.{missing[0]}=0.2, say"
            )
        self.weights = {name: known[name] for name in self.parts}

    def _supervisions(self) -> list[tuple[str, Supervision]]:
        return [(name, cast(Supervision, part)) for name, part in self.parts.items()]

    @property
    def needs(self) -> Needs:
        """What all parts together read."""
        needs = Needs()
        for _, part in self._supervisions():
            needs |= part.needs
        return needs

    @property
    def image_views(self) -> tuple[str, ...]:
        """Image views that a batch must have."""
        return self.needs.images

    @property
    def text_views(self) -> tuple[str, ...]:
        """Text views that a batch must have."""
        return self.needs.texts

    def check(self, model: DualEncoder) -> None:
        """Refuse a model that lacks what a part needs, before anything is computed.

        Raises:
            ValueError: with the part and the key to change.
        """
        for name, part in self._supervisions():
            try:
                part.check(model)
            except ValueError as error:
                raise ValueError(f"objective.parts.{name}: {error}") from None

    def forward(self, model: DualEncoder, batch: MultiViewBatch | ImageTextBatch) -> dict[str, Tensor]:
        """Losses and metrics of this process's pairs.

        Returns:
            "loss", to back-propagate; each part's own loss under its name and its metrics under `name/metric`, and the
            temperature as "logit_scale", all detached.

        Raises:
            ValueError: the batch lacks a view.
        """
        found = self.terms(Views(model, batch, self.needs))
        outputs = {"loss": torch.stack([self.weights[name] * one["loss"] for name, one in found.items()]).sum()}
        for name, one in found.items():
            outputs |= {name if key == "loss" else f"{name}/{key}": value.detach() for key, value in one.items()}
        return {**outputs, "logit_scale": model.scale().detach()}

    def terms(self, views: Views) -> dict[str, dict[str, Tensor]]:
        """What each part gives, by name: its "loss", without its weight, and its metrics."""
        return {name: part(views) for name, part in self._supervisions()}

    def extra_repr(self) -> str:
        """What print() shows."""
        return ", ".join(f"{weight:g} {name}" for name, weight in self.weights.items())
