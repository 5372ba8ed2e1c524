"""The configuration of DeCLIP's repository, made from a model node: the way back of `declip_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.declip_config import original_node
from multimodal_zoo.checkpoints.tables.nodes import differences, essence

Node = dict[str, Any]
#: Keys of a node that change neither the tensors nor what they compute; the temperature's node tells the method.
_ELSEWHERE = ("std", "init", "kernel", "checkpoint", "drop_path", "processor", "card", "logit_scale", "matching")


def original_config(node: Mapping[str, Any]) -> Node:
    """The repository's `image_encode`, `text_encode` and `clip`.

    Raises:
        UnknownCheckpoint: a model that they cannot describe, with the first parts that differ.
    """
    try:
        config = {"image_encode": _image(node), "text_encode": _text(node), "clip": _clip(node)}
    except (KeyError, TypeError) as error:
        raise UnknownCheckpoint(f"no model of DeCLIP's repository: it has no {error} where one has") from error
    if differing := differences(essence(node, _ELSEWHERE), essence(original_node(config), _ELSEWHERE)):
        raise UnknownCheckpoint(f"DeCLIP's configuration has no key for {', '.join(differing[:5])}")
    return config


def _image(node: Mapping[str, Any]) -> Node:
    tower = node["image"]
    sizes = {"input_resolution": tower["image_size"], "embed_dim": node["embed_dim"]}
    if tower["type"] == "vision_transformer":
        return {**sizes, "patch_size": tower["patches"]["patch_size"], **_blocks(tower, "")}
    pool = tower["pool"]
    return {
        **sizes,
        "width": tower["stem_width"],
        "layers": list(tower["depths"]),
        "heads": pool.get("attention", pool)["heads"],
        "use_sync_bn": False,
    }


def _text(node: Mapping[str, Any]) -> Node:
    tower = node["text"]
    return {
        "embed_dim": node["embed_dim"],
        "context_length": tower["context_length"],
        **_blocks(tower, "transformer_"),
        "positional_embedding_flag": True,
        "text_encode_type": "Transformer",
        "text_model_utils": {"random": False, "freeze": False},
        "vocab_size": tower["vocab_size"],
    }


def _blocks(tower: Mapping[str, Any], prefix: str) -> Node:
    blocks = tower["blocks"]
    return {
        f"{prefix}width": tower["width"],
        f"{prefix}layers": blocks["depth"],
        f"{prefix}heads": blocks["block"]["attention"]["qkv"]["heads"],
        "checkpoint": blocks["checkpoint"] != "none",
    }


def _clip(node: Mapping[str, Any]) -> Node:
    heads, config = node.get("heads") or {}, {"use_allgather": True}
    if "simclr" in heads:
        config |= {"feature_dim": heads["simclr"]["width"], "sim_dim": heads["simclr"]["output"]}
    if "simsiam" in heads:
        config["feature_dim"] = heads["simsiam"]["width"]
    if "token_wise" in heads:
        config |= {
            "dense_embed_dim": heads["token_wise"]["embed_dim"],
            "dense_mapping_image": heads["token_wise"]["image_width"],
            "dense_mapping_language": heads["token_wise"]["text_width"],
        }
    return config
