"""The frozen reference of a recipe (`reference:`): the model that a preferred drawing's reward is counted from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from multimodal_zoo.training.initial import initial_model, read_places


def reference_model(node: Mapping[str, Any], recipe: Mapping[str, Any]) -> nn.Module:
    """The reference of preference learning: the recipe's model with weights of its own, without a visual tokenizer.

    Every process holds the whole of it until a sharding strategy splits it as it splits what trains. Its weights stay
    in the file that they come from: checkpoints hold none of them, and a resumed run reads them again.

    Args:
        node: `weights`, what `initial_weights` takes (`initial.initial_model`); null is the random start of this seed.
        recipe: the resolved recipe.

    Raises:
        ValueError: a key that the node does not take, or no weights where training starts from some.
    """
    if unknown := sorted(set(node) - {"weights"}):
        raise ValueError(f"reference.{unknown[0]}: no such key; it takes weights")
    weights = node.get("weights")
    if not read_places(weights) and read_places(recipe.get("initial_weights")):
        raise ValueError(
            "reference.weights is null, but training starts from initial_weights: give the reference the same, "
            "${initial_weights}"
        )
    model, _ = initial_model({**recipe, "initial_weights": weights, "trainer": None}, say=_unsaid)
    if getattr(model, "vision_tokenizer", None) is not None:
        model.vision_tokenizer = None  # type: ignore[assignment]
    return model


def _unsaid(message: str) -> None:
    """What the weights that training starts from have said already."""
