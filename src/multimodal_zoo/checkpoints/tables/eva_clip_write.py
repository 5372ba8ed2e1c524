"""The configurations of EVA-CLIP's publishers, made from a model node: the way back of `eva_clip_config`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.clip_config import HF_ACTIVATIONS, RESIZE_MODES
from multimodal_zoo.checkpoints.tables.eva_clip_config import TIMM_TOWERS, VISION, hub_node, image_nodes, original_node
from multimodal_zoo.checkpoints.tables.nodes import below, differences, essence

Node = dict[str, Any]
#: Keys of a node that change neither the tensors nor what they compute.
_ELSEWHERE = ("std", "init", "kernel", "checkpoint", "drop_path", "patch_dropout", "processor", "card", "logit_scale")


def original_config(node: Mapping[str, Any]) -> Node:
    """The original configuration, `{"embed_dim", "vision_cfg", "text_cfg"}`.

    Raises:
        UnknownCheckpoint: a model that its fields cannot describe.
    """
    config: Node = {"embed_dim": _get(node, "embed_dim"), "vision_cfg": _vision(node), "text_cfg": _text(node)}
    if _get(node, "text.blocks.block.mlp.activation") == "quick_gelu":
        config["quick_gelu"] = True
    return _checked(config, original_node(config), node, "EVA-CLIP's original configuration")


def hub_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of the Hub's `EvaCLIPModel`, whose projections have no bias.

    Raises:
        UnknownCheckpoint: a model that its class cannot hold: rotary positions, gates, sub-LN, a bias of the head.
    """
    _check_hub(node, [] if not _get(node, "image_projection").get("bias") else ["bias in visual_projection"])
    return hub_scaled_config(node)


def hub_scaled_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of the older port of `EvaCLIPModel`, with a temperature and biases; raises as `hub_config`."""
    _check_hub(node)
    image, text = _get(node, "image"), _get(node, "text")
    biased = bool(_get(node, "image.blocks.block.attention.qkv").get("type") == "packed_qkv_keyless")
    block = _get(node, "image.blocks.block")
    vision = {
        **_hub_tower(image, _get(node, "image.pool.norm.eps")),
        "image_size": image["image_size"], "patch_size": _get(node, "image.patches.patch_size"),
        "q_bias": biased, "k_bias": False, "v_bias": biased, "num_channels": 3,
        "post_layernorm": block["type"] == "post_norm_block", "use_rms_norm": block["norm"]["type"] == "rms_norm",
    }  # fmt: skip
    words = {
        **_hub_tower(text, _get(node, "text.norm.eps")),
        "vocab_size": text["vocab_size"], "max_position_embeddings": text["context_length"],
        "bos_token_id": text["vocab_size"] - 2, "eos_token_id": text["vocab_size"] - 1,
    }  # fmt: skip
    facts = {"architectures": ["EvaCLIPModel"], "model_type": "clip", "projection_dim": node["embed_dim"]}
    config = {**facts, "vision_config": vision, "text_config": words}
    again = hub_node(config, head_bias=bool(_get(node, "image_projection").get("bias")))
    return _checked(config, again, node, "the config.json of EvaCLIPModel")


def open_clip_config(node: Mapping[str, Any]) -> Node:
    """An `open_clip_config.json` with the tower's name in timm.

    Raises:
        UnknownCheckpoint: an image tower that timm does not declare.
    """
    embed_dim, size = _get(node, "embed_dim"), _get(node, "image.image_size")
    for name, tower in TIMM_TOWERS.items():
        declared = image_nodes({"embed_dim": embed_dim, "vision_cfg": {**tower, "image_size": size}})[0]
        if _essence(declared) == _essence(node["image"]) and tower.get("image_size", 224) == size:
            timm = {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": "token", "timm_proj": None}
            model = {"embed_dim": embed_dim, "vision_cfg": {"image_size": size, **timm}, "text_cfg": _text(node)}
            config = {"model_cfg": {**model, "custom_text": True}, "preprocess_cfg": _preprocess(node)}
            again = original_node({**model, "vision_cfg": {**tower, "image_size": size}})
            return _checked(config, again, node, "open_clip's configuration")
    raise UnknownCheckpoint(f"open_clip's configuration: timm declares no such tower; it has {', '.join(TIMM_TOWERS)}")


def _preprocess(node: Mapping[str, Any]) -> Node:
    images = (node.get("processor") or {}).get("images") or {}
    modes = {ours: theirs for theirs, ours in RESIZE_MODES.items()}
    found = {key: images[key] for key in ("mean", "std", "interpolation") if key in images}
    return {**found, "resize_mode": modes[images["resize"]]} if images.get("resize") in modes else found


def _vision(node: Mapping[str, Any]) -> Node:
    width, block = _get(node, "image.width"), _get(node, "image.blocks.block")
    rotary, qkv = node["image"].get("rotary"), _get(node, "image.blocks.block.attention.qkv")
    config: Node = {
        "image_size": _get(node, "image.image_size"), "layers": _get(node, "image.blocks.depth"), "width": width,
        "head_width": _get(qkv, "head_dim"), "mlp_ratio": ratio(width, _get(block, "mlp.hidden")),
        "patch_size": _get(node, "image.patches.patch_size"), "eva_model_name": "eva-clip",
        "drop_path_rate": _get(node, "image.blocks.drop_path"),
    }  # fmt: skip
    optional = {
        "qkv_bias": qkv["type"] in ("packed_qkv_keyless", "separate_qkv_keyless"),
        "postnorm": block["type"] == "post_norm_block",
        "rope": rotary is not None,
        "intp_freq": rotary is not None,
        "pt_hw_seq_len": rotary["pretrained_side"] if rotary else VISION["pt_hw_seq_len"],
        "naiveswiglu": block["mlp"]["type"] == "swiglu",
        "subln": "inner_norm" in block["attention"],
        "use_rms_norm": block["norm"]["type"] == "rms_norm",
        "global_average_pool": _get(node, "image.pool.type") == "mean_pool",
        "ls_init_value": (block.get("layer_scale") or {}).get("initial"),
    }
    return config | {key: value for key, value in optional.items() if value != VISION[key]}


def _text(node: Mapping[str, Any]) -> Node:
    text, block = _get(node, "text"), _get(node, "text.blocks.block")
    config: Node = {
        "context_length": _get(text, "context_length"), "vocab_size": _get(text, "vocab_size"),
        "width": text["width"], "heads": _get(block, "attention.qkv.heads"), "layers": text["blocks"]["depth"],
    }  # fmt: skip
    if block["mlp"]["hidden"] != 4 * text["width"]:
        config["mlp_ratio"] = ratio(text["width"], block["mlp"]["hidden"])
    if block.get("layer_scale"):
        config["ls_init_value"] = block["layer_scale"]["initial"]
    return config


def _check_hub(node: Mapping[str, Any], others: Sequence[str] = ()) -> None:
    """Refuse an image tower with parts that EvaCLIPModel lacks, and `others`, each named."""
    image, block = _get(node, "image"), _get(node, "image.blocks.block")
    parts = {
        "rotary positions": image.get("rotary") is not None,
        "SwiGLU": _get(block, "mlp.type") == "swiglu",
        "sub-LN": "inner_norm" in block["attention"],
        "layer scale": bool(block.get("layer_scale")),
        "mean over the tokens": _get(image, "pool.type") == "mean_pool",
    }
    found = [*(part for part, there in parts.items() if there), *others]
    if found:
        raise UnknownCheckpoint(f"EvaCLIPModel has no {', no '.join(found)}, which this model has")


def _hub_tower(tower: Mapping[str, Any], eps: float) -> Node:
    names = {ours: theirs for theirs, ours in HF_ACTIVATIONS.items()}
    mlp = _get(tower, "blocks.block.mlp")
    return {
        "hidden_size": tower["width"],
        "intermediate_size": mlp["hidden"],
        "num_hidden_layers": tower["blocks"]["depth"],
        "num_attention_heads": _get(tower, "blocks.block.attention.qkv.heads"),
        "hidden_act": names.get(mlp.get("activation", ""), "gelu"),
        "layer_norm_eps": eps,
    }


def ratio(width: int, hidden: int) -> float:
    """The shortest MLP ratio whose product with the width truncates to the hidden width, as the original code does."""
    exact = hidden / width
    for digits in range(1, 17):
        for value in (round(exact, digits), math.ceil(exact * 10.0**digits) / 10.0**digits):
            if int(width * value) == hidden:
                return value
    return math.nextafter(exact, math.inf)


def _checked(config: Node, again: Mapping[str, Any], node: Mapping[str, Any], what: str) -> Node:
    """The configuration, if it gives the node again but for what matters in training only."""
    parts = ("image", "text", "image_projection", "text_projection")
    ours, theirs = ({part: _essence(one.get(part)) for part in parts} for one in (node, again))
    if differing := differences(ours, theirs):
        raise UnknownCheckpoint(f"{what} cannot describe {', '.join(differing[:5])}")
    return config


def _essence(node: Any) -> Any:
    """A node without what changes nothing; positions of either kind are the same tensor."""
    found = essence(node, _ELSEWHERE)
    if below(found, "positions.type") == "learned_positions":
        found["positions"]["type"] = "resizable_positions"
    return found


def _get(node: Mapping[str, Any], path: str) -> Any:
    found = below(node, path)
    if found is None:
        raise UnknownCheckpoint(f"no EVA-CLIP: its node has no {path}")
    return found
