"""The model that training starts from: random, from one file, or its parts from files of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from typing import Any

from torch import nn

from multimodal_zoo.checkpoints.listing import listed
from multimodal_zoo.checkpoints.load import Accounting
from multimodal_zoo.checkpoints.parts import PARTS, place_of
from multimodal_zoo.checkpoints.store import load_part, load_weights, recognise
from multimodal_zoo.checkpoints.training_only import lacking, lacks_adapters, without
from multimodal_zoo.nn.low_rank import without_adapters
from multimodal_zoo.training.deferred import StartValues, deferred_model
from multimodal_zoo.zoo import build_model, from_pretrained

log = logging.getLogger(__name__)

#: What `initial_weights` may name beside a single place.
KEYS = ("model", *PARTS, "resize", "outer_blocks", "copy_vision_branch", "new_tokens")


def initial_model(
    recipe: Mapping[str, Any], *, resumed: bool = False, say: Callable[[str], None] = log.info
) -> tuple[nn.Module, StartValues | None]:
    """The recipe's model with its processor, and with the weights that `initial_weights` names.

    That is a place (a path, hf://... or package:...) of a whole model, or a mapping: `model`, a whole model; `image`,
    `text`, `decoder` and `vision_tokenizer`, a file of any known naming from which that part alone is taken, without a
    projection; `resize`, whether positions and patch kernels of other sizes are interpolated; `outer_blocks`, whether
    parts take the first and the last blocks of deeper ones; `copy_vision_branch`, whether the weights that a whole
    model's blocks have for pictures begin as a copy of the text's (EVE v2, after its first stage), as they do anyway
    where `decoder` names a plain one; `new_tokens`, how rows of a larger vocabulary than the file's begin (`mean`,
    `scattered`). Adapters, and what training alone needs (`training_only`), begin anew where the file lacks them.

    Under a strategy that shards parameters the model's matrices are on the meta device, or memory-mapped from the
    files in their own type; `sharding.shard` and `sharding.settle` give each rank its part. The values are the same as
    without sharding.

    Args:
        recipe: the resolved recipe: `model`, `seed`, `initial_weights`, `trainer`.
        resumed: whether a checkpoint will fill the model anyway.
        say: called with what was taken from which file, what was left out, and what stays random.

    Returns:
        the model, and for a sharded one what computes its start values.

    Raises:
        ValueError: `initial_weights` has another key, or a copy is asked for that cannot be.
        multimodal_zoo.checkpoints.load.CheckpointMismatch: tensors that do not fit, all listed.
    """
    places = read_places(recipe.get("initial_weights"))
    config, seed = recipe["model"], int(recipe["seed"])
    deferring = shards_parameters(recipe.get("trainer"))
    if resumed and deferring:
        return _deferred(config, seed, draw=False)
    resize = bool(places.get("resize"))
    if "model" in places:
        model, start = _from_file(places, config, deferring, seed, say)
    else:
        model, start = _deferred(config, seed) if deferring else (build_model(config, seed=seed), None)
    filled: set[str] = set()
    for part in [part for part in PARTS if part in places]:
        dtype = None if start is None else "auto"
        first = bool(places.get("outer_blocks"))
        options: dict[str, Any] = {"dtype": dtype, "resize": resize, "outer_blocks": first, "sharing": deferring}
        with without_adapters(model):
            result = load_part(model, part, places[part], new_tokens=places.get("new_tokens"), **options)
        place = place_of(model, part)
        filled.update(f"{place}{name.removeprefix(part)}" for name in result.matched)
        say(_account(part, places[part], result))
    if filled and "model" not in places:
        say(listed("random", [name for name in model.state_dict() if name not in filled]))
    return model, start


def read_places(given: Any) -> dict[str, Any]:
    """`initial_weights` as a mapping without empty entries.

    Raises:
        ValueError: a key that it does not take.
    """
    if given is None or isinstance(given, str):
        return {} if given is None else {"model": given}
    if unknown := sorted(set(given) - set(KEYS)):
        raise ValueError(f"initial_weights.{unknown[0]}: no such key; it takes a place, or {', '.join(KEYS)}")
    return {key: value for key, value in given.items() if value is not None}


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


def _from_file(
    places: Mapping[str, Any], config: Mapping[str, Any], deferring: bool, seed: int, say: Callable[[str], None]
) -> tuple[nn.Module, StartValues | None]:
    """A whole model from a file; what only training needs and the file lacks keeps its first values."""
    place, resize, copied = places["model"], bool(places.get("resize")), bool(places.get("copy_vision_branch"))
    source = recognise(place, config)
    fresh, new_tokens = lacking(source, config), places.get("new_tokens")
    adapters = "adapter" if lacks_adapters(source, config) else None
    if not (deferring or fresh or copied or new_tokens or adapters):
        return from_pretrained(place, config=config, resize=resize).train(), None
    if deferring:
        model, start = _deferred(config, seed, draw=bool(fresh or adapters))
    else:
        model, start = build_model(config, seed=seed), None
    with without(model, fresh), without_adapters(model) if adapters else nullcontext():
        dtype = None if start is None else "auto"
        options: dict[str, Any] = {
            "resize": resize,
            "copy_vision_branch": copied,
            "new_tokens": new_tokens,
            "sharing": deferring,
        }
        load_weights(model, source, dtype=dtype, **options)
    if adapters:
        say(f"initial_weights.model: {place} has no adapters; they begin anew (seed {seed})")
    for name in fresh:
        say(f"initial_weights.model: {place} has no {name}; it begins anew (seed {seed})")
    if copied:
        say("initial_weights.copy_vision_branch: the weights for pictures are a copy of the text's")
    model.weights = place  # type: ignore[assignment]
    return model, start


def _account(part: str, place: Any, result: Accounting) -> str:
    taken = f"initial_weights.{part}: {len(result.matched)} tensors from {place}"
    return "\n".join([taken, listed("left out", list(result.left_out))] if result.left_out else [taken])
