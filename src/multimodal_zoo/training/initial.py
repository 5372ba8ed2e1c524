"""The model that training starts from: random, from one file, or its towers from files of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from multimodal_zoo.training.deferred import StartValues, deferred_model
from multimodal_zoo.zoo import build_model, from_pretrained

log = logging.getLogger(__name__)

#: Towers of a dual encoder, which may start from different files.
PARTS = ("image", "text")


def initial_model(
    recipe: Mapping[str, Any], *, resumed: bool = False, say: Callable[[str], None] = log.info
) -> tuple[nn.Module, StartValues | None]:
    """The recipe's model with its processor, and with the weights that `initial_weights` names.

    Under a strategy that shards parameters the model's matrices are on the meta device, or memory-mapped from the
    files in their own type; `sharding.shard` gives each rank its part. The values are the same as without sharding.

    Args:
        recipe: the resolved recipe: `model`, `seed`, `initial_weights`, `trainer`.
        resumed: whether a checkpoint will fill the model anyway.
        say: called with what was taken from which file.

    Returns:
        the model, and for a sharded one what computes its start values.

    Raises:
        ValueError: `initial_weights` names something else than the towers.
        multimodal_zoo.checkpoints.load.CheckpointMismatch: tensors that do not fit, all listed.
    """
    source = recipe.get("initial_weights")
    if isinstance(source, Mapping):
        source = {part: place for part, place in source.items() if place is not None} or None
        if unknown := sorted(set(source or ()) - set(PARTS)):
            raise ValueError(f"initial_weights: {', '.join(unknown)}; it takes a place, or {' and '.join(PARTS)}")
    config, seed = recipe["model"], int(recipe["seed"])
    deferring = shards_parameters(recipe.get("trainer"))
    if resumed and deferring:
        return _deferred(config, seed, draw=False)
    if isinstance(source, str):
        return _from_file(source, config, deferring)
    model, start = _deferred(config, seed) if deferring else (build_model(config, seed=seed), None)
    for part, place in (source or {}).items():
        _fill_part(model, part, str(place), say, keep_dtype=start is not None)
    return model, start


def shards_parameters(trainer: Mapping[str, Any] | None) -> bool:
    """Whether a `trainer` node's strategy splits the parameters over the ranks in the module's `configure_model`."""
    strategy = (trainer or {}).get("strategy")
    target = strategy.get("_target_") if isinstance(strategy, Mapping) else None
    if not isinstance(target, str) or not target.startswith("multimodal_zoo."):
        return False
    from lightning.pytorch.strategies import ModelParallelStrategy

    module, _, name = target.rpartition(".")
    return issubclass(getattr(import_module(module), name), ModelParallelStrategy)


def _deferred(config: Mapping[str, Any], seed: int, draw: bool = True) -> tuple[nn.Module, StartValues | None]:
    try:
        return deferred_model(lambda: build_model(config, seed=seed), draw=draw)
    except NotImplementedError as error:  # a borrowed backbone, say
        log.warning("every rank builds the whole model before it is sharded: %s", error)
        return build_model(config, seed=seed), None


def _from_file(source: str, config: Mapping[str, Any], deferring: bool) -> tuple[nn.Module, StartValues | None]:
    if not deferring:
        return from_pretrained(source, config=config), None
    from multimodal_zoo.checkpoints.store import load_weights, recognise

    found = recognise(source, config)
    model, start = _deferred(found.config, seed=0, draw=False)
    load_weights(model, found, dtype=_dtype(found.shapes()))
    model.weights = source  # type: ignore[assignment]
    return model, start


def _dtype(shapes: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The type of most of a file's values, so that they stay mapped from the file until they are sharded."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in shapes.values():
        if tensor.is_floating_point():
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)


def _fill_part(model: nn.Module, part: str, place: str, say: Callable[[str], None], keep_dtype: bool) -> None:
    from multimodal_zoo.checkpoints.store import load_part

    load_part(model, part, place)
