"""The declaration of one part of a model that lies in a file or folder: what puts it into a slot of another model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.meta import module_node
from multimodal_zoo.checkpoints.parts import INSIDE, PARTS
from multimodal_zoo.checkpoints.store import recognise
from multimodal_zoo.checkpoints.tables.nodes import below
from multimodal_zoo.registry import DECODERS, ENCODERS, TOKENIZERS, find

#: Part -> the kind of component that it is where a model consists of it alone.
KINDS = {"image": ENCODERS, "text": ENCODERS, "decoder": DECODERS, "vision_tokenizer": TOKENIZERS}


def part_node(place: str, part: str) -> dict[str, Any]:
    """The node of one part of a model, or of a model that is such a part; its weights are not read.

    Args:
        place: what `recognise` takes: a training run, a folder of `save_model`, a publisher's folder or file,
            `hf://...`, `package:...`.
        part: a name of `parts.PARTS`.

    Raises:
        ValueError: no such part there, with those that there are.
        CheckpointError: nothing known at `place`.
    """
    if part not in PARTS:
        raise ValueError(f"part:{place},{part}: no part is called {part!r}; choose {', '.join(PARTS)}")
    node = recognise(place).config
    found = {name: held for name in PARTS if (held := _held(node, name)) is not None}
    if not found and find(str(node.get("type"))) in KINDS[part].module_dict.values():
        return module_node(node)
    if part not in found:
        there = ", ".join(found) or "no part"
        raise ValueError(f"part:{place},{part}: a {node.get('type')} without it; it has {there}")
    return dict(found[part])


def _held(node: Mapping[str, Any], part: str) -> Mapping[str, Any] | None:
    """The part's node inside a whole model's, under whatever name the model has for it."""
    places = (below(node, name) for name in (part, *INSIDE.get(part, ())))
    return next((found for found in places if isinstance(found, Mapping)), None)
