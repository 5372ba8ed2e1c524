"""Model nodes of Emu2 and of visual decoders from the configurations that their publishers' folders hold."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from multimodal_zoo.checkpoints.declarations import declaration, declared
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.checkpoints.tables.clip_config import sizes_from_hf
from multimodal_zoo.checkpoints.tables.eve_config import bare

Node = dict[str, Any]
#: Published variants; what a folder leaves open (tokenizer, template) is taken from the first with its vocabulary.
VARIANTS = ("emu2", "emu2_chat")
#: Class of the published code.
CLASS = "EmuForCausalLM"
#: What the published configuration leaves out where it means the published model.
VISION = {
    "image_size": 448, "patch_size": 14, "width": 1792, "layers": 64, "head_width": 112, "layer_norm_eps": 1e-6,
    "n_query": 64, "v_query": 64, "qkv_bias": True, "postnorm": True,
}  # fmt: skip
#: Hidden width of the image encoder's MLP in multiples of its width.
MLP_RATIO = 8.571428571428571
#: Folder of a pipeline -> class of diffusers that it may hold, and our part.
CLASSES = {"unet": ("UNet2DConditionModel", "diffusion_unet"), "vae": ("AutoencoderKL", "diffusion_vae")}


def is_emu2(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is Emu2's, by its class, or by an image encoder of EVA's beside a decoder's sizes."""
    words = [str(word) for word in config.get("architectures") or ()]
    vision = config.get("vision_config")
    eva = isinstance(vision, Mapping) and {"width", "layers", "head_width"} <= vision.keys()
    return "hidden_size" in config and (CLASS in words or eva)


def published_node(config: Mapping[str, Any]) -> Node:
    """The node of an Emu2 from its `config.json`: LLaMA's keys, and EVA's below `vision_config`.

    Raises:
        UnknownCheckpoint: a size that is not given, or what no part can express.
    """
    decoder = node_from_hf({**config, "model_type": "llama"})
    vision = {**VISION, **(config.get("vision_config") or {})}
    variant = next((name for name in VARIANTS if declared(name)["decoder"]["vocab_size"] == decoder["vocab_size"]), "")
    node = declaration(variant or VARIANTS[0], _sizes(vision, decoder))
    processor = {"image_tokens": int(vision["n_query"]), "frame_tokens": int(vision["v_query"])}
    node["processor"] = {**node["processor"], **processor, "context_length": decoder["max_positions"]}
    node["processor"]["images"]["size"] = int(vision["image_size"])
    alike = bool(variant) and all(
        bare(node[part]) == bare(declared(variant)[part]) for part in ("image_encoder", "connector")
    )
    if not alike or bare(decoder) != bare(declared(variant)["decoder"]):
        node["card"] = {"system": "Emu2", "summary": "sizes read from the publisher's own configuration"}
    return {**node, "decoder": decoder}


def _sizes(vision: Mapping[str, Any], decoder: Mapping[str, Any]) -> list[str]:
    width, head = int(vision["width"]), int(vision["head_width"])
    if not vision["qkv_bias"] or width % head:
        raise UnknownCheckpoint(
            f"config.json: vision_config has qkv_bias {vision['qkv_bias']} and heads of {head} in a width of {width}; "
            "EVA's encoder has biases, and a multiple"
        )
    hidden = vision.get("intermediate_size") or int(width * float(vision.get("mlp_ratio", MLP_RATIO)))
    block, qkv = "model.image_encoder.blocks.block", "model.image_encoder.blocks.block.attention.qkv"
    return [
        f"model.image_encoder.width={width}", f"model.image_encoder.image_size={vision['image_size']}",
        f"model.image_encoder.patches.patch_size={vision['patch_size']}",
        f"model.image_encoder.blocks.depth={vision['layers']}", f"{block}.norm.eps={vision['layer_norm_eps']}",
        f"{block}.type={'post_norm_block' if vision['postnorm'] else 'pre_norm_block'}", f"{block}.mlp.hidden={hidden}",
        f"{qkv}.heads={width // head}", f"{qkv}.head_dim={head}",
        f"model.connector.width={width}", f"model.decoder.width={decoder['width']}",
    ]  # fmt: skip


def visual_decoder_node(
    parts: Mapping[str, Mapping[str, Any]],
    scheduler: Mapping[str, Any],
    checker: tuple[Mapping[str, Any], int, int] | None,
) -> Node:
    """The node of a visual decoder from a pipeline's configurations; steps and guidance are Emu's or Emu2-Gen's.

    Keys that diffusers' class does not take are left out, as diffusers does.

    Args:
        parts: `unet` and perhaps `vae` -> their `config.json`.
        scheduler: the `scheduler_config.json`.
        checker: the safety checker's `config.json` and how many concepts and special ones it has; None for no checker.

    Raises:
        UnknownCheckpoint: another class than Stable Diffusion's.
    """
    nodes: Node = {name: None if name not in parts else _diffusion_part(name, parts[name]) for name in CLASSES}
    unet, vae = nodes["unet"]["config"], nodes["vae"] and nodes["vae"]["config"]
    sized = unet.get("addition_embed_type") is not None
    stride = 2 ** (len(vae["block_out_channels"]) - 1) if vae else 1
    name = str(scheduler.get("_class_name", ""))
    return {
        "type": "latent_diffusion",
        **nodes,
        "scheduler": {"type": "diffusion_scheduler", "name": name, "config": _taken(name, scheduler)},
        "conditioning": {"type": "sized_pictures" if sized else "embeddings_alone"},
        "safety_checker": None if checker is None else _checker_node(*checker),
        "size": int(unet.get("sample_size") or (128 if sized else 64)) * stride,
        "steps": 50,
        "guidance": 3.0 if sized else 7.5,
    }


def _diffusion_part(name: str, config: Mapping[str, Any]) -> Node:
    wanted, part = CLASSES[name]
    if (found := config.get("_class_name", wanted)) != wanted:
        raise UnknownCheckpoint(f"{name}/config.json: _class_name is {found!r}; a visual decoder's is {wanted!r}")
    return {"type": part, "config": _taken(wanted, config)}


def _taken(name: str, config: Mapping[str, Any]) -> Node:
    from multimodal_zoo.decoders.diffusion_parts import from_diffusers

    known = inspect.signature(from_diffusers(name, "reading a folder of diffusers").__init__).parameters
    return {key: deepcopy(value) for key, value in config.items() if key in known}


def _checker_node(config: Mapping[str, Any], concepts: int, special: int) -> Node:
    tower = {**(config.get("vision_config") or {}), "model_type": "clip"}
    sizes = sizes_from_hf({"vision_config": tower})
    image = sizes.node()["image"]
    width = int(config.get("projection_dim", 768))
    return {"type": "safety_checker", "image": image, "embed_dim": width, "concepts": concepts, "special": special}
