"""EVA-CLIP's model nodes, made from the configurations that its publishers wrote: the original and the Hub's.

Sources: EVA-CLIP (arXiv 2303.15389), EVA-CLIP-18B (arXiv 2402.04252). Every field counts with its published default; a
field that would change the mathematics and that no part expresses is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.clip_config import HF_ACTIVATIONS
from multimodal_zoo.checkpoints.tables.eva_clip_nodes import ImageSizes, TextSizes, complete

Node = dict[str, Any]
#: Fields of the original `vision_cfg` with their defaults.
VISION: dict[str, Any] = {
    "layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16, "image_size": 224,
    "ls_init_value": None, "patch_dropout": 0.0, "global_average_pool": False, "drop_path_rate": None,
    "qkv_bias": True, "postnorm": False, "rope": False, "pt_hw_seq_len": 16, "intp_freq": False,
    "naiveswiglu": False, "subln": False, "use_rms_norm": False,
}  # fmt: skip
#: Fields of the original `text_cfg` with their defaults.
TEXT: dict[str, Any] = {
    "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12, "mlp_ratio": 4.0,
    "ls_init_value": None,
}  # fmt: skip
#: Fields that choose a kernel, name the model, or belong to towers that are not EVA's, with the values that mean EVA.
#: None stands for any value.
_INERT: dict[str, tuple[Any, ...] | None] = {
    "xattn": None, "fusedLN": None, "eva_model_name": None, "custom_text": None, "hf_tokenizer_name": None,
    "timm_model_pretrained": None, "timm_pool": None, "timm_proj": None, "timm_proj_bias": None,
    "hf_model_pretrained": None, "proj": None, "pooler_type": None, "attn_mask": (True,),
}  # fmt: skip
_EVA02 = {"rope": True, "pt_hw_seq_len": 16, "intp_freq": True, "naiveswiglu": True, "subln": True}
_GIANT = {"layers": 40, "width": 1408, "head_width": 88, "mlp_ratio": 4.3637, "patch_size": 14}
_LARGE = {"layers": 24, "width": 1024, "mlp_ratio": 2.6667, "patch_size": 14, **_EVA02}
#: The original fields of the towers that timm declares by name, which open_clip's configurations quote.
TIMM_TOWERS: dict[str, dict[str, Any]] = {
    "eva_giant_patch14_224": _GIANT,
    "eva_giant_patch14_clip_224": _GIANT,
    "eva02_base_patch16_clip_224": {"mlp_ratio": 2.6667, **_EVA02},
    "eva02_large_patch14_clip_224": _LARGE,
    "eva02_large_patch14_clip_336": {**_LARGE, "image_size": 336},
    "eva02_enormous_patch14_clip_224": {
        "layers": 64, "width": 1792, "head_width": 112, "mlp_ratio": 8.571428571428571, "patch_size": 14,
        "postnorm": True,
    },
}  # fmt: skip


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is EVA-CLIP's own: its image section names an EVA model."""
    vision = config.get("vision_cfg")
    return isinstance(vision, Mapping) and bool(vision.get("eva_model_name"))


def is_hub(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of the Hub's `EvaCLIPModel`, whose `model_type` may be that of plain CLIP."""
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        return False
    named = [*(config.get("architectures") or []), *(config.get("auto_map") or {}).values(), config.get("model_type")]
    said = any("evaclip" in str(name).lower().replace("_", "").replace("-", "") for name in named)
    return said or any(key in vision for key in ("q_bias", "use_rms_norm", "post_layernorm"))


def from_open_clip(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The original configuration that an open_clip one with a timm tower of EVA-CLIP means; None for other towers."""
    vision = config.get("vision_cfg") or {}
    tower = TIMM_TOWERS.get(str(vision.get("timm_model_name")))
    if tower is None:
        return None
    rest = {key: value for key, value in vision.items() if key in ("image_size", "patch_dropout")}
    named = {"embed_dim": config.get("embed_dim"), "vision_cfg": {**tower, **rest}, "text_cfg": config.get("text_cfg")}
    return {**named, "quick_gelu": True} if config.get("quick_gelu") else named


def original_node(config: Mapping[str, Any]) -> Node:
    """The complete model node of an original configuration, `{"embed_dim", "vision_cfg", "text_cfg"}`.

    With the sizes of a published variant it is that variant's declaration, but for drop path and patch dropout, which
    the configuration decides.

    Raises:
        UnknownCheckpoint: a field that no part expresses, or sizes that contradict each other; all named.
    """
    return complete(_image_sizes(config), _text_sizes(config), _embed_dim(config))


def image_nodes(config: Mapping[str, Any]) -> tuple[Node, Node]:
    """The nodes of the image tower and of its projection alone; raises as `original_node`."""
    sizes = _image_sizes(config)
    return sizes.node(), sizes.projection(_embed_dim(config))


def text_nodes(config: Mapping[str, Any]) -> tuple[Node, Node]:
    """The nodes of the text tower and of its projection alone; raises as `original_node`."""
    sizes = _text_sizes(config)
    return sizes.node(), sizes.projection(_embed_dim(config))


def hub_node(config: Mapping[str, Any], head_bias: bool | None = None) -> Node:
    """The complete model node of the Hub's `EvaCLIPModel`, `{"projection_dim", "vision_config", "text_config"}`.

    Args:
        config: the content of `config.json`.
        head_bias: whether `visual_projection` has a bias, which only the tensors tell; None takes it to go with the
            biases of queries and values, as in the original code.

    Raises:
        UnknownCheckpoint: a field that no part expresses; all named.
    """
    vision, text = dict(config.get("vision_config") or {}), dict(config.get("text_config") or {})
    return complete(_hub_image(vision, head_bias), _hub_text(text), int(config.get("projection_dim", 512)))


def _embed_dim(config: Mapping[str, Any]) -> int:
    known = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "cast_dtype"}
    strange = [f"{key}={value!r}" for key, value in config.items() if key not in known | set(_INERT) and value]
    if strange or not isinstance(config.get("embed_dim"), int):
        what = ", ".join(strange) or f"embed_dim={config.get('embed_dim')!r}"
        raise UnknownCheckpoint(f"EVA-CLIP configuration: {what} is not understood")
    return int(config["embed_dim"])


def _read(config: Mapping[str, Any], section: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """One section with its defaults filled in; a field left None counts as left out."""
    given = config.get(section)
    if not isinstance(given, Mapping):
        raise UnknownCheckpoint(
            f"EVA-CLIP configuration: no section {section}; it has {', '.join(config) or 'nothing'}"
        )
    strange = []
    for key, value in given.items():
        plain = _INERT.get(key, ())
        if key not in defaults and value and plain is not None and value not in plain:
            strange.append(f"{section}.{key}={value!r}")
        if key == "attn_mask" and not value:
            strange.append(f"{section}.attn_mask={value!r} (the text tower is causal)")
        if key == "eva_model_name" and not value:
            strange.append(f"{section}.eva_model_name={value!r} (the image tower is not EVA's)")
    if strange:
        raise UnknownCheckpoint(f"EVA-CLIP configuration: {', '.join(strange)}: no part of this library does that")
    return {key: default if given.get(key) is None else given[key] for key, default in defaults.items()}


def _whole(values: Mapping[str, Any], section: str, names: tuple[str, ...]) -> list[int]:
    """Fields that must be whole numbers above 0; a pair of equal sides counts as one."""
    found = []
    for name in names:
        value = values[name]
        if isinstance(value, (list, tuple)) and len(set(value)) == 1 and name.endswith("_size"):
            value = value[0]
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value != int(value) or value < 1:
            raise UnknownCheckpoint(
                f"EVA-CLIP configuration: {section}.{name} is {values[name]!r}; expected a whole number above 0"
            )
        found.append(int(value))
    return found


def _image_sizes(config: Mapping[str, Any]) -> ImageSizes:
    given = _read(config, "vision_cfg", VISION)
    names = ("layers", "width", "head_width", "patch_size", "image_size", "pt_hw_seq_len")
    depth, width, head_width, patch_size, image_size, side = _whole(given, "vision_cfg", names)
    if head_width > width:
        raise UnknownCheckpoint(f"EVA-CLIP configuration: vision_cfg.head_width {head_width} exceeds width {width}")
    if given["rope"] and not given["intp_freq"] and image_size // patch_size != side:
        raise UnknownCheckpoint(
            f"EVA-CLIP configuration: without vision_cfg.intp_freq the rotary table is for a grid of side {side} "
            f"(vision_cfg.pt_hw_seq_len); images of {image_size} make {image_size // patch_size}"
        )
    heads = width // head_width
    return ImageSizes(
        width=width,
        depth=depth,
        heads=heads,
        head_dim=width // heads,
        hidden=int(width * given["mlp_ratio"]),
        patch_size=patch_size,
        image_size=image_size,
        qkv_bias=bool(given["qkv_bias"]),
        head_bias=bool(given["qkv_bias"]),
        sub_ln=bool(given["subln"]),
        gated=bool(given["naiveswiglu"]),
        post_norm=bool(given["postnorm"]),
        rms=bool(given["use_rms_norm"]),
        rotary_side=side if given["rope"] else None,
        mean_pool=bool(given["global_average_pool"]),
        layer_scale=given["ls_init_value"] if (given["ls_init_value"] or 0) > 0 else None,
        drop_path=float(given["drop_path_rate"] or 0.0),
        patch_dropout=float(given["patch_dropout"] or 0.0),
    )


def _text_sizes(config: Mapping[str, Any]) -> TextSizes:
    given = _read(config, "text_cfg", TEXT)
    names = ("context_length", "vocab_size", "width", "heads", "layers")
    context_length, vocab_size, width, heads, depth = _whole(given, "text_cfg", names)
    if width % heads:
        raise UnknownCheckpoint(f"EVA-CLIP configuration: text_cfg.width {width} is not a multiple of heads {heads}")
    return TextSizes(
        width=width,
        depth=depth,
        heads=heads,
        hidden=int(width * given["mlp_ratio"]),
        context_length=context_length,
        vocab_size=vocab_size,
        activation="quick_gelu" if config.get("quick_gelu") else "gelu",
        layer_scale=given["ls_init_value"],
    )


def _hub_section(given: Mapping[str, Any], section: str, plain: Mapping[str, Any]) -> None:
    """Refuse what the towers cannot express: a listed field with another value than the plain one."""
    strange = [f"{section}.{key}={given[key]!r}" for key, value in plain.items() if given.get(key, value) != value]
    if given.get("hidden_act", "gelu") not in HF_ACTIVATIONS:
        strange.append(f"{section}.hidden_act={given['hidden_act']!r}")
    if strange:
        raise UnknownCheckpoint(f"config.json: {', '.join(strange)}: no part of this library does that")


def _hub_image(given: Mapping[str, Any], head_bias: bool | None) -> ImageSizes:
    _hub_section(given, "vision_config", {"num_channels": 3, "attention_dropout": 0.0, "dropout": 0.0})
    biases = tuple(bool(given.get(f"{kind}_bias", kind != "k")) for kind in "qkv")
    if biases not in ((True, False, True), (False, False, False)):
        raise UnknownCheckpoint(
            f"config.json: vision_config.q_bias, k_bias, v_bias are {biases}: queries and values have a bias or none"
        )
    width, heads = int(given.get("hidden_size", 768)), int(given.get("num_attention_heads", 12))
    return ImageSizes(
        width=width,
        depth=int(given.get("num_hidden_layers", 12)),
        heads=heads,
        head_dim=width // heads,
        hidden=int(given.get("intermediate_size", 3072)),
        patch_size=int(given.get("patch_size", 32)),
        image_size=int(given.get("image_size", 224)),
        qkv_bias=biases[0],
        head_bias=biases[0] if head_bias is None else head_bias,
        post_norm=bool(given.get("post_layernorm", False)),
        rms=bool(given.get("use_rms_norm", False)),
        activation=HF_ACTIVATIONS[given.get("hidden_act", "gelu")],
        eps=float(given.get("layer_norm_eps", 1e-6)),
    )


def _hub_text(given: Mapping[str, Any]) -> TextSizes:
    plain = {"attention_dropout": 0.0, "dropout": 0.0, "q_bias": True, "k_bias": True, "v_bias": True}
    _hub_section(given, "text_config", {**plain, "post_layernorm": False, "use_rms_norm": False})
    width, heads = int(given.get("hidden_size", 512)), int(given.get("num_attention_heads", 8))
    vocab_size, end = int(given.get("vocab_size", 49408)), given.get("eos_token_id", 2)
    if end not in (2, vocab_size - 1, None):  # 2: the class's historical default, read as the largest id
        raise UnknownCheckpoint(
            f"config.json: text_config.eos_token_id is {end}; the text tower reads its features at the largest id, "
            f"which must be the end token ({vocab_size - 1})"
        )
    return TextSizes(
        width=width,
        depth=int(given.get("num_hidden_layers", 12)),
        heads=heads,
        hidden=int(given.get("intermediate_size", 2048)),
        context_length=int(given.get("max_position_embeddings", 77)),
        vocab_size=vocab_size,
        activation=HF_ACTIVATIONS[given.get("hidden_act", "gelu")],
        eps=float(given.get("layer_norm_eps", 1e-5)),
    )
