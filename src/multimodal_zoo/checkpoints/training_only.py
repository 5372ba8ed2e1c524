"""Parts of a model that training alone needs: loading for inference leaves them out and reads nothing of them.

A model says which they are: its class has `training_parts`, names of slots that may be empty. `later_parts` are slots
that are trained after the rest (Emu's visual decoder): a file without them begins their training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from multimodal_zoo.checkpoints.source import Source
from multimodal_zoo.checkpoints.tables import NAMINGS, best_namings
from multimodal_zoo.checkpoints.views import View
from multimodal_zoo.registry import find


def training_parts(node: Mapping[str, Any]) -> list[str]:
    """Names of the parts of a model node that only training needs, of those that it has."""
    return _named(node, "training_parts")


def _named(node: Mapping[str, Any], kind: str) -> list[str]:
    known = getattr(find(node["type"], "model"), kind, ()) if isinstance(node.get("type"), str) else ()
    return [name for name in known if node.get(name) is not None]


def for_inference(node: Mapping[str, Any]) -> dict[str, Any]:
    """A model node without those parts."""
    return {**node, **dict.fromkeys(training_parts(node))}


def absent_parts(model: nn.Module) -> list[str]:
    """Such parts that a model could have and has not, so that a file's tensors of them have no place."""
    return [name for name in getattr(model, "training_parts", ()) if getattr(model, name, None) is None]


def lacking(source: Source, node: Mapping[str, Any]) -> list[str]:
    """Such parts of a node, and later ones, of which a checkpoint holds no tensor: they begin anew.

    Args:
        source: a recognised checkpoint.
        node: the model that it will fill.
    """
    wanted = [*training_parts(node), *_named(node, "later_parts")]
    if not wanted:
        return []
    shapes = source.shapes()
    namings = [None] if source.naming is None else [source.naming, *best_namings(shapes, NAMINGS.values())]
    shown = {name.split(".", 1)[0] for naming in namings for name in View(source, naming).shapes()}
    return [name for name in wanted if name not in shown]


def lacks_adapters(source: Source, node: Mapping[str, Any]) -> bool:
    """Whether a model has adapters (`low_rank`) and a checkpoint for it has none.

    Args:
        source: a recognised checkpoint.
        node: the model that it will fill.
    """
    if not _names_adapters(node):
        return False
    return not any(".adapter." in name or ".lora_" in name for name in source.shapes())


def _names_adapters(node: Any) -> bool:
    if isinstance(node, Mapping):
        return node.get("adapter") is not None or any(_names_adapters(child) for child in node.values())
    return isinstance(node, (list, tuple)) and any(_names_adapters(child) for child in node)


@contextmanager
def without(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """A model without some of its parts, while it is being filled."""
    kept = {name: getattr(model, name) for name in names}
    try:
        for name in names:
            setattr(model, name, None)
        yield
    finally:
        for name, part in kept.items():
            setattr(model, name, part)
