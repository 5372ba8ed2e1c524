"""The configurations of EVE's publishers, made from a model node: the way back of `eve_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.causal_decoder_write import decoder_config
from multimodal_zoo.checkpoints.tables.eve_config import CLASSES, IMAGE_KEYS, PARTS, bare, published_node
from multimodal_zoo.checkpoints.tables.nodes import differences

Node = dict[str, Any]
#: Part that makes tokens of pictures -> version.
_VERSIONS = {"eve_patch_embedding": 1, "eve_direct_embedding": 2}
#: `model_type` of either version; readers go by `architectures`.
_MODEL_TYPES = {1: "eve", 2: "eve_qwen2"}


def v1_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of version 1, as for inference.

    Raises:
        UnknownCheckpoint: another model, or one that the configuration cannot describe, with what differs.
    """
    return _checked(node, 1, {"requires_cliploss": False, "mm_projector_type": "mlp2x_gelu"})


def v1_training_config(node: Mapping[str, Any]) -> Node:
    """The same for weights with an aligning layer; errors as for `v1_config`."""
    if not node.get("aligner"):
        raise UnknownCheckpoint("it has no aligning layer (model.aligner is null)")
    return _checked(node, 1, {"requires_cliploss": True, "mm_projector_type": "mlp2x_gelu"})


def v2_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of version 2; errors as for `v1_config`."""
    _require(node, 2)
    parts = node["decoder"]["blocks"]["block"].get("parts", ())
    if not parts:
        raise UnknownCheckpoint("its blocks have no weights of their own for pictures (decoupled_block)")
    words = "-".join(word for word, ours in PARTS.items() if ours in parts)
    return _checked(node, 2, {"add_moe": True, "moe_part": words})


def v2_stage0_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of version 2 in its first stage; errors as for `v1_config`."""
    return _checked(node, 2, {"add_moe": False})


def preprocessor_config(node: Mapping[str, Any]) -> Node | None:
    """The `preprocessor_config.json` that the publishers name and do not offer, or None for a node without pictures."""
    processor = node.get("processor") or {}
    images = processor.get("images")
    version = _VERSIONS.get((node.get("vision_embedding") or {}).get("type", ""))
    if not images or version is None:
        return None
    config: Node = {"do_resize": False, "do_center_crop": False, "resample": 3, "template": processor["template"]}
    return {**config, **{key: images[ours] for key, ours in IMAGE_KEYS[version].items() if ours in images}}


def _require(node: Mapping[str, Any], version: int) -> None:
    kind = (node.get("vision_embedding") or {}).get("type", "")
    if node.get("type") != "eve" or _VERSIONS.get(kind) != version:
        raise UnknownCheckpoint(
            f"no EVE of version {version}, whose pictures enter in another way, but {kind or node.get('type')!r}"
        )


def _checked(node: Mapping[str, Any], version: int, facts: Mapping[str, Any]) -> Node:
    """A configuration that means this node again."""
    _require(node, version)
    embedding = node["vision_embedding"]
    decoder = {**node["decoder"], "blocks": dict(node["decoder"]["blocks"])}
    if decoder["blocks"]["block"]["type"] == "decoupled_block":
        decoder["blocks"]["block"] = decoder["blocks"]["block"]["block"]
    config = decoder_config(decoder, CLASSES[version][1])
    config |= {"architectures": [CLASSES[version][0]], "model_type": _MODEL_TYPES[version]}
    config |= {"mm_hidden_size": embedding["hidden"], **facts}
    again = published_node(config, preprocessor_config(node))
    ours, theirs = (
        {"decoder": bare(one["decoder"]), "vision_embedding": bare(one["vision_embedding"])} for one in (node, again)
    )
    if differing := differences(ours, theirs):
        raise UnknownCheckpoint(f"a config.json of EVE {version} has no key for {', '.join(differing[:5])}")
    return config
