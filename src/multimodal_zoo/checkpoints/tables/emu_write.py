"""The configurations of Emu's and Emu2's publishers, made from a model node: the way back of `emu_config`."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.causal_decoder_write import decoder_config
from multimodal_zoo.checkpoints.tables.emu_config import CLASS, CLASSES, published_node, visual_decoder_node
from multimodal_zoo.checkpoints.tables.eve_config import bare
from multimodal_zoo.checkpoints.tables.nodes import differences, essence

Node = dict[str, Any]
#: Parts of a model that a `config.json` of Emu2 describes.
_PARTS = ("image_encoder", "connector", "input_projection", "decoder")


def sizes_node(node: Mapping[str, Any]) -> Node:
    """The model's own node: the published code keeps the sizes of single files in itself, and we read them here.

    Raises:
        UnknownCheckpoint: no Emu.
    """
    _require(node)
    sizes = deepcopy(dict(node))
    words = ((sizes.get("processor") or {}).get("texts") or {}).get("tokenizer") or {}
    if words.get("type") == "llama_tokenizer":
        words["path"] = None  # the file lies beside the weights, wherever these go
    return sizes


def plain_node(node: Mapping[str, Any]) -> Node:
    """The same of a model without adapters.

    Raises:
        UnknownCheckpoint: no Emu, or one with adapters.
    """
    sizes = sizes_node(node)
    if sizes["decoder"]["blocks"].get("adapter"):
        raise UnknownCheckpoint("it has adapters (model.decoder.blocks.adapter), for which there are no names")
    return sizes


def adapted_node(node: Mapping[str, Any]) -> Node:
    """The same of a model with adapters, whose scale readers of the names do not ask for: it is 1.

    Raises:
        UnknownCheckpoint: no Emu, no adapters, or ones of another scale.
    """
    sizes = sizes_node(node)
    adapter = sizes["decoder"]["blocks"].get("adapter")
    if not adapter or adapter["alpha"] != adapter["rank"]:
        found = f"alpha {adapter['alpha']} and rank {adapter['rank']}" if adapter else "no adapters"
        raise UnknownCheckpoint(f"it has {found} (model.decoder.blocks.adapter); Emu-I's alpha is its rank")
    return sizes


def body_node(node: Mapping[str, Any]) -> Node:
    """The same without the visual decoder, which has folders of its own; errors as for `plain_node`, or none there."""
    return {**plain_node(node), **_without_drawing(node)}


def emu2_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of Emu2 and of its relatives: LLaMA's keys, and EVA's below `vision_config`.

    Raises:
        UnknownCheckpoint: another model, or one that the configuration cannot describe, with what differs.
    """
    _require(node)
    try:
        config = _emu2_sizes(node)
    except (KeyError, TypeError) as error:
        raise UnknownCheckpoint(f"no Emu2: it has no {error} where Emu2 has one") from error
    again = published_node(config)
    ours, theirs = ({part: _compared(one.get(part)) for part in _PARTS} for one in (node, again))
    if differing := differences(ours, theirs):
        raise UnknownCheckpoint(f"a config.json of Emu2 has no key for {', '.join(differing[:5])}")
    return config


def emu2_body_config(node: Mapping[str, Any]) -> Node:
    """The same of a model with a visual decoder, which has folders of its own; errors as for `emu2_config`."""
    return emu2_config({**node, **_without_drawing(node)})


def diffusion_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of the diffusion network or of the autoencoder, as diffusers reads it."""
    name = next((name for name, part in CLASSES.values() if part == node["type"]), None)
    if name is None:
        known = ", ".join(part for _, part in CLASSES.values())
        raise UnknownCheckpoint(f"part {node['type']!r} has no folder of diffusers; those that have are {known}")
    return {"_class_name": name, **node["config"]}


def scheduler_config(node: Mapping[str, Any]) -> Node:
    """The `scheduler_config.json` of a visual decoder's scheduler."""
    return {"_class_name": node["name"], **node["config"]}


def checker_config(node: Mapping[str, Any]) -> Node:
    """The `config.json` of a safety checker, a CLIP image tower of transformers.

    Raises:
        UnknownCheckpoint: another tower than CLIP's.
    """
    image, block = node["image"], node["image"]["blocks"]["block"]
    tower = {
        "model_type": "clip_vision_model",
        "hidden_size": image["width"],
        "intermediate_size": block["mlp"]["hidden"],
        "num_hidden_layers": image["blocks"]["depth"],
        "num_attention_heads": block["attention"]["qkv"]["heads"],
        "hidden_act": block["mlp"]["activation"],
        "layer_norm_eps": block["norm"]["eps"],
        "image_size": image["image_size"],
        "patch_size": image["patches"]["patch_size"],
        "projection_dim": node["embed_dim"],
    }
    config = {
        "architectures": ["StableDiffusionSafetyChecker"],
        "model_type": "clip",
        "projection_dim": node["embed_dim"],
        "vision_config": tower,
    }
    parts = {"unet": {"block_out_channels": [1]}}
    scheduler = {"_class_name": "DDIMScheduler"}
    counts = (int(node["concepts"]), int(node["special"]))
    again = visual_decoder_node(parts, scheduler, (config, *counts))["safety_checker"]
    if differing := differences(_compared(image), _compared(again["image"]), "safety_checker.image"):
        raise UnknownCheckpoint(f"a config.json of a CLIP image tower has no key for {', '.join(differing[:5])}")
    return config


def _require(node: Mapping[str, Any]) -> None:
    if node.get("type") != "emu":
        raise UnknownCheckpoint(f"no Emu, but {node.get('type')!r}")


def _without_drawing(node: Mapping[str, Any]) -> Node:
    if not node.get("visual_decoder"):
        raise UnknownCheckpoint("it has no visual decoder (model.visual_decoder is null)")
    return {"visual_decoder": None}


def _emu2_sizes(node: Mapping[str, Any]) -> Node:
    image, processor = node["image_encoder"], node.get("processor") or {}
    block = image["blocks"]["block"]
    qkv = block["attention"]["qkv"]
    return {
        **decoder_config(node["decoder"], "llama"),
        "architectures": [CLASS],
        "vision_config": {
            "image_size": image["image_size"],
            "patch_size": image["patches"]["patch_size"],
            "width": image["width"],
            "layers": image["blocks"]["depth"],
            "head_width": qkv["head_dim"],
            "mlp_ratio": block["mlp"]["hidden"] / image["width"],
            "intermediate_size": block["mlp"]["hidden"],
            "layer_norm_eps": block["norm"]["eps"],
            "qkv_bias": True,
            "postnorm": block["type"] == "post_norm_block",
            "n_query": processor.get("image_tokens", 64),
            "v_query": processor.get("frame_tokens") or processor.get("image_tokens", 64),
        },
    }


#: Keys of the image encoder's node that no tensor and no inference depends on, the norm behind it among them.
_UNUSED = ("pool", "patch_dropout", "drop_path", "dropout", "loss_chunk")


def _compared(node: Any) -> Any:
    """A node without what does not tell models apart, and without keys that say nothing."""
    return essence(bare(node), _UNUSED, empty=(None, False))
