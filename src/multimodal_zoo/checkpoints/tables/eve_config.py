"""Model nodes of EVE from the configurations of its publishers, versions 1 and 2 (arXiv 2406.11832, 2502.06788)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from multimodal_zoo.checkpoints.declarations import declared
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.checkpoints.tables.nodes import differences, essence

Node = dict[str, Any]
#: Version -> published variants. What a folder leaves open (pictures, template) is taken from the first that fits.
VARIANTS = {1: ("eve_7b", "eve_7b_hd"), 2: ("eve_v2_7b_hd",)}
#: Version -> class of the published code, and the family of its decoder.
CLASSES = {1: ("EVELlamaForCausalLM", "llama"), 2: ("EVEQwen2ForCausalLM", "qwen2")}
#: Words of `moe_part`, what exists twice -> our name.
PARTS = {"layernorm": "norm", "self_attn": "attention", "mlp": "mlp"}
#: Keys of a preprocessor's configuration -> our name below `processor.images`, by version. The last ones are no
#: publisher's: what published pictures leave out, and the weights of others may need.
IMAGE_KEYS = {
    1: {
        "image_size": "image_size", "image_size_clip": "teacher_size", "patch_stride_clip": "teacher_patch",
        "patch_stride": "patch", "conv_stride": "window", "image_mean": "mean", "image_std": "std",
        "ratio": "ratio", "background": "background",
    },
    2: {
        "max_size": "max_size", "patch_stride": "patch", "dense_stride": "window", "image_mean": "mean",
        "image_std": "std", "inference_rule": "inference_rule", "min_pixels": "min_pixels", "max_pixels": "max_pixels",
        "ratio": "ratio", "background": "background",
    },
}  # fmt: skip
#: What of a decoder's node does not tell variants apart: it changes no result within the published lengths.
_LOOSE = ("std", "init", "kernel", "checkpoint", "pad_id", "max_positions")


def version_of(config: Mapping[str, Any]) -> int | None:
    """The version of EVE that a `config.json` is of, by its class or its `model_type`; None for another model."""
    words = [str(word) for word in config.get("architectures") or ()]
    for version, (name, _) in CLASSES.items():
        if name in words:
            return version
    if not str(config.get("model_type", "")).lower().startswith("eve") or "mm_hidden_size" not in config:
        return None
    return 2 if "add_moe" in config or "moe_part" in config or "qwen" in str(config["model_type"]).lower() else 1


def published_node(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> Node:
    """The node of a published EVE, for inference: without the aligning layer.

    The preprocessor that `mm_vision_tower` names exists nowhere; its values are those of the variants here.

    Args:
        config: the `config.json`.
        preprocessor: the `preprocessor_config.json` beside it, where there is one; this library adds the `template` of
            conversations, which published folders leave to their readers.

    Raises:
        UnknownCheckpoint: another model, or what no part does.
    """
    version = version_of(config)
    if version is None:
        raise UnknownCheckpoint(f"config.json: model_type {config.get('model_type')!r} is no EVE")
    decoder = _decoder(config, version)
    variant = _variant(decoder, version, {**config, **(preprocessor or {})})
    node = deepcopy(declared(variant or VARIANTS[version][0]))
    images = node["processor"]["images"]
    for key, ours in IMAGE_KEYS[version].items():
        value = (preprocessor or {}).get(key, config.get(key))
        if value is not None:
            images[ours] = value
    node["processor"]["template"] = (preprocessor or {}).get("template", node["processor"]["template"])
    if variant is not None:  # what is read in training may be longer than the decoder's own configuration says
        decoder["max_positions"] = max(decoder["max_positions"], node["decoder"]["max_positions"])
    else:
        node["card"] = {"system": "EVE", "summary": "sizes read from the publisher's own configuration"}
    embedding = {**node["vision_embedding"], **_embedding(config, decoder)}
    return {**node, "decoder": decoder, "vision_embedding": {**embedding, **_strides(images)}, "aligner": None}


def _decoder(config: Mapping[str, Any], version: int) -> Node:
    node = node_from_hf({**config, "model_type": CLASSES[version][1]})
    parts = moe_parts(config) if version == 2 else []
    if parts:
        node["blocks"]["block"] = {"type": "decoupled_block", "parts": parts, "block": node["blocks"]["block"]}
    return node


def moe_parts(config: Mapping[str, Any]) -> list[str]:
    """What of the blocks has weights of its own for pictures; nothing in version 2's first stage.

    Raises:
        UnknownCheckpoint: an unknown word in `moe_part`.
    """
    if not config.get("add_moe", "moe_part" in config):
        return []
    words = re.split(r"[-_ ,+]+(?!attn)", str(config.get("moe_part") or "-".join(PARTS)))
    if unknown := [word for word in words if word not in PARTS]:
        raise UnknownCheckpoint(f"config.json: moe_part names {unknown[0]!r}; it takes {'-'.join(PARTS)}")
    return [ours for word, ours in PARTS.items() if word in words]


def _embedding(config: Mapping[str, Any], decoder: Mapping[str, Any]) -> Node:
    projector = config.get("mm_projector_type", "mlp2x_gelu")
    if projector not in ("mlp2x_gelu", "identity", None):
        raise UnknownCheckpoint(f"config.json: mm_projector_type is {projector!r}; EVE's is 'mlp2x_gelu'")
    return {"width": decoder["width"], "hidden": config.get("mm_hidden_size") or 1024}


def _strides(images: Mapping[str, Any]) -> Node:
    return {"patch": images["patch"], "window": images["window"]}


def _variant(decoder: Node, version: int, facts: Mapping[str, Any]) -> str | None:
    """The published variant with this decoder and the size of its pictures, by its preprocessor or the name of one."""
    alike = [name for name in VARIANTS[version] if not differences(bare(declared(name)["decoder"]), bare(decoder))]
    numbers = {int(number) for number in re.findall(r"\d+", str(facts.get("mm_vision_tower", "")))}
    for name in alike:
        size = declared(name)["processor"]["images"].get("image_size")
        given = facts.get("image_size")
        if given == size if given is not None else size in numbers:
            return name
    return alike[0] if alike and facts.get("image_size") is None else None


def bare(node: Any) -> Any:
    """A decoder's node without what does not tell variants apart."""
    return essence(node, _LOOSE)
