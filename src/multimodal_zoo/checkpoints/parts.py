"""Parts of a model, each from a file of its own: one tower, a decoder, a visual tokenizer, or all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.files import State
from multimodal_zoo.checkpoints.load import account
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.source import SAVED, Source
from multimodal_zoo.checkpoints.tables import NAMINGS, best_namings, rank_namings
from multimodal_zoo.checkpoints.tables.emu3_config import with_vision
from multimodal_zoo.checkpoints.training_only import absent_parts
from multimodal_zoo.checkpoints.views import Change, Seen, View, Without

#: Puts something around a view: of the first blocks of deeper stacks, or of plain blocks twice.
Wrap = Callable[[Seen], Seen]

#: Parts of a model that can be loaded alone.
PARTS = ("image", "text", "decoder", "vision_tokenizer")
#: Where a model may hold a part otherwise than under its name: EVE's `encoder_embedding`, Emu.
INSIDE = {"image": ("vision_embedding.encoder", "image_encoder")}
#: What an image encoder has for its pooled vector, and lacks where its tokens alone are read (`unpooled`).
POOLED = "image.pool."


class Joined:
    """Several checkpoints as one, in our names, shard by shard: each shows one part of a model.

    Args:
        views: one for each part.
    """

    def __init__(self, views: Sequence[Seen]) -> None:
        self.views = tuple(views)

    @property
    def path(self) -> Path:
        """Where they are, for errors."""
        return Path(" and ".join(str(view.path) for view in self.views))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names in the files that are not shown; known once `shapes` or `shards` has run."""
        return tuple(name for view in self.views for name in view.left_out)

    def shapes(self) -> State:
        """Names and shapes, on the meta device."""
        return {name: tensor for view in self.views for name, tensor in view.shapes().items()}

    def shards(self, passing: Callable[[str], bool] | None = None) -> Iterator[State]:
        """The tensors, one file at a time; `passing` as in `View.shards`."""
        for view in self.views:
            yield from view.shards(passing)


def readable(
    model: nn.Module, source: Source, change: Change | None = None, wrap: Wrap | None = None
) -> tuple[Source | Seen, Naming | None]:
    """What fills a model from a recognised checkpoint, and the table from its names to ours.

    Several namings may share a file's names: a decoder alone is named as one inside a larger model is. The model
    decides. What only training needs and the model lacks (`training_only`) is not read.

    Args:
        model: the receiver.
        source: the checkpoint.
        change: as in `View`.
        wrap: put around what is shown.
    """
    if source.parts:
        views = [part_view(receiver(model, [part]), one, [part], change) for part, one in source.parts.items()]
        return Joined(views), None
    absent, shapes = absent_parts(model), source.shapes()
    if wrap is not None:
        equal = [source.naming] if source.naming is None else [source.naming, *best_namings(shapes, NAMINGS.values())]
        views = [wrap(View(source, naming, change=change, without=absent)) for naming in equal]
        return next((view for view in views if account(model, view.shapes()).exact), views[0]), None
    if change is not None or (source.naming is None and any(name.split(".", 1)[0] in absent for name in shapes)):
        return View(source, source.naming, change=change, without=absent), None
    if source.naming is None:
        return source, None
    equal = [source.naming, *best_namings(shapes, NAMINGS.values())]
    fitting = (naming for naming in equal if account(model, shapes, naming).exact)
    return source, next(fitting, source.naming)


def joined(config: Mapping[str, Any], sources: Mapping[str, Source]) -> Source:
    """Checkpoints of a model's parts as one, for the model of a node; a vocabulary beside one of them is taken along.

    Args:
        config: the model node.
        sources: part of the model -> the checkpoint that fills it.

    Raises:
        ValueError: no parts, or one that the model lacks.
    """
    from multimodal_zoo.checkpoints.texts import with_texts

    there = [part for part in PARTS if config.get(part) is not None]
    if not sources or (unknown := sorted(set(sources) - set(there))):
        named = unknown[0] if sources else "nothing"
        raise ValueError(f"pretrained names {named}; the model's parts are {', '.join(there) or 'none'}")
    node = dict(config)
    for source in sources.values():
        node = with_texts(node, source.files[0].parent)
    return Source("checkpoints of parts", next(iter(sources.values())).path, node, parts=dict(sources))


def with_part(source: Source, part: str, other: Source) -> Source:
    """A checkpoint of a model with one part from another checkpoint, its configuration included.

    Args:
        source: of a model with decoder and visual tokenizer, or with the decoder alone.
        part: `vision_tokenizer`.
        other: of that part alone, or of a model that has it.

    Raises:
        UnknownCheckpoint: the model takes no such part, or `other` has none.
    """
    node = other.config if other.config.get("type") != source.config.get("type") else other.config.get(part)
    if source.config.get("type") != "emu3" or part != "vision_tokenizer":
        kind = source.config.get("type", source.kind)
        raise UnknownCheckpoint(f"{source.path}: {part} is a part of an Emu3; this is {kind}")
    if not node or node.get("type") != "emu3_vision_tokenizer":
        raise UnknownCheckpoint(f"{part}={other.path}: expected a visual tokenizer, found {other.kind}")
    config = with_vision(source.config, {**node, "processor": other.config.get("processor")})
    rest = source.parts or {"decoder": source}
    return replace(source, config=config, parts={**rest, part: other})


def place_of(model: nn.Module, part: str) -> str | None:
    """The name under which a model holds a part; None where it has none."""
    modules = dict(model.named_modules())
    return next((place for place in (part, *INSIDE.get(part, ())) if place in modules), None)


def receiver(model: nn.Module, names: Sequence[str]) -> nn.ModuleDict:
    """Some parts of a model under their own names.

    Raises:
        ValueError: the model has no such part, or it is no part that can be filled alone.
    """
    places = {name: place_of(model, name) for name in names}
    if names[0] not in PARTS or None in places.values():
        there = [name for name in PARTS if place_of(model, name) is not None]
        raise ValueError(
            f"part={names[0]!r}: expected {' or '.join(PARTS)}, and a model that has {', '.join(names)}; this one has "
            f"{', '.join(there) or 'none of them'}"
        )
    return nn.ModuleDict({name: model.get_submodule(place) for name, place in places.items() if place is not None})


def part_view(
    parts: nn.ModuleDict,
    source: Source,
    names: Sequence[str],
    change: Change | None = None,
    wrap: Wrap | None = None,
) -> Seen:
    """A checkpoint of a whole model, or of one part alone, seen as what fills some parts of a model.

    Args:
        parts: from `receiver`.
        source: the checkpoint.
        names: the parts, the first of which `source` may hold alone.
        change: as in `View`.
        wrap: put around what is shown.
    """
    bare = "image" in parts and not any(name.startswith(POOLED) for name in parts.state_dict())

    def seen(naming: Naming | None) -> Seen:
        """What a naming shows."""
        view: Seen = View(source, naming, names, change)
        view = Without(view, POOLED) if bare else view
        return view if wrap is None else wrap(view)

    view = seen(source.naming)
    ranked = [seen(naming) for naming in rank_namings(source.shapes(), names[0])]
    ours = source.kind == SAVED
    views = [view, *ranked] if ours else ranked  # a student of ours lacks norms that a CLIP's tower has
    fitting = next((one for one in views if account(parts, one.shapes()).exact), None)
    if fitting is not None or ours:
        return view if fitting is None else fitting
    # the closest says best what does not fit
    return max(ranked, key=lambda one: len(account(parts, one.shapes()).matched), default=view)
