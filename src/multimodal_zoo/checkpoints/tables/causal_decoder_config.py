"""Causal decoders of the LLaMA family as model nodes, from the `config.json` of a Hugging Face folder, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint

Node = dict[str, Any]
#: `model_type` -> what a key means that is left out, and the biases of queries, keys and values.
_DEFAULTS: dict[str, Node] = {
    "llama": {"rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 2048, "attention_dropout": 0.0},
    "qwen2": {"rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 32768, "attention_dropout": 0.0},
    "Emu3": {
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 9216, "attention_dropout": 0.1,
        "pad_token_id": 151643,
    },
    "emu3_text_model": {
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 9216, "attention_dropout": 0.1,
        "pad_token_id": 151643,
    },
}  # fmt: skip
#: Names of the sizes that every configuration gives.
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
#: Keys with the only values that no part contradicts.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "use_sliding_window": (False,),
    "sliding_window": (None,),
}
#: How positions may be stretched -> the part that does it.
SCALINGS = {"default": "rotary_1d", "linear": "rotary_1d_linear", "dynamic": "rotary_1d_dynamic"}


def is_causal(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a decoder of the family, by its `model_type`."""
    return config.get("model_type") in _DEFAULTS and "hidden_size" in config


def node_from_hf(config: Mapping[str, Any]) -> Node:
    """The node of a `causal_decoder` from a `config.json`.

    `pretraining_tp` splits the reference's matrix products and changes no result; `initializer_range` is the deviation
    of the first weights.

    Raises:
        UnknownCheckpoint: another family, a size that is not given, or a value that no part can express.
    """
    kind = config.get("model_type")
    if kind not in _DEFAULTS:
        raise UnknownCheckpoint(f"config.json: model_type is {kind!r}; decoders known are {', '.join(_DEFAULTS)}")
    if missing := [key for key in _SIZES if key not in config]:
        raise UnknownCheckpoint(f"config.json: a decoder ({kind}) without {', '.join(missing)}")
    given = {**_DEFAULTS[kind], **{key: value for key, value in config.items() if value is not None}}
    _refuse(given)
    width, dropout, std = given["hidden_size"], given["attention_dropout"], given.get("initializer_range", 0.02)
    attention = _attention(given)
    norm = {"type": "rms_norm", "width": width, "eps": given["rms_norm_eps"]}
    block = {
        "type": "pre_norm_block",
        "norm": norm,
        "layer_scale": {"type": "branch_dropout", "rate": dropout} if kind.lower().startswith("emu3") else None,
        "attention": attention,
        "mlp": {"type": "swiglu", "width": width, "hidden": given["intermediate_size"], "bias": False},
    }
    blocks = {
        "type": "transformer",
        "depth": given["num_hidden_layers"],
        "checkpoint": "none",
        "init": {"type": "normal_init", "std": std},
        "block": block,
    }
    return {
        "type": "causal_decoder",
        "width": width,
        "vocab_size": given["vocab_size"],
        "max_positions": _max_positions(given),
        "pad_id": _pad_id(given),
        "embedding_dropout": dropout if kind == "Emu3" else 0.0,  # transformers' own class has none there
        "rotary": _rotary(given, attention["qkv"]["head_dim"]),
        "blocks": blocks,
        "norm": dict(norm),
        "tied": bool(given.get("tie_word_embeddings", False)),
        "std": std,
    }


def _attention(given: Mapping[str, Any]) -> Node:
    width, heads = given["hidden_size"], given["num_attention_heads"]
    return {
        "type": "self_attention",
        "width": width,
        "output_bias": bool(given.get("attention_bias", False)),
        "dropout": given["attention_dropout"],
        "kernel": "sdpa",
        "qkv": {
            "type": "separate_qkv",
            "width": width,
            "heads": heads,
            "head_dim": given.get("head_dim", width // heads),
            "kv_heads": given.get("num_key_value_heads", heads),
            "biased": _biased(given),
        },
    }


def _biased(given: Mapping[str, Any]) -> list[str]:
    return ["query", "key", "value"] if given.get("attention_bias") or given.get("model_type") == "qwen2" else []


def _pad_id(given: Mapping[str, Any]) -> int | None:
    """The padding id, where it is one of the vocabulary."""
    pad = given.get("pad_token_id")
    return pad if isinstance(pad, int) and 0 <= pad < given["vocab_size"] else None


def _scaling(given: Mapping[str, Any]) -> tuple[str, float]:
    """How positions are stretched, in transformers' older words or its newer ones, and by how much."""
    words = {**(given.get("rope_scaling") or {}), **(given.get("rope_parameters") or {})}
    return words.get("rope_type", words.get("type", "default")), float(words.get("factor", 1.0))


def _rotary(given: Mapping[str, Any], head_dim: int) -> Node:
    kind, factor = _scaling(given)
    base = float((given.get("rope_parameters") or {}).get("rope_theta", given["rope_theta"]))
    node = {"type": SCALINGS[kind], "head_dim": head_dim, "base": base}
    if kind != "default":
        node["factor"] = factor
    return {**node, "trained": given["max_position_embeddings"]} if kind == "dynamic" else node


def _max_positions(given: Mapping[str, Any]) -> int:
    """Most tokens of a sequence; with dynamic stretching the configuration gives those of training."""
    kind, factor = _scaling(given)
    return int(given["max_position_embeddings"] * (factor if kind == "dynamic" else 1))


def _refuse(given: Mapping[str, Any]) -> None:
    """Raise for what the parts do not do."""
    for key, values in _PLAIN.items():
        if key in given and given[key] not in values and not (key == "sliding_window" and _unused_window(given)):
            raise UnknownCheckpoint(f"config.json: {key} is {given[key]!r}; the decoder takes {values[0]!r} only")
    for key in ("rope_scaling", "rope_parameters"):
        rope = given.get(key) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind not in SCALINGS or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise UnknownCheckpoint(f"config.json: {key} is {rope!r}; the decoder takes {', '.join(SCALINGS)} only")
    if given["hidden_size"] % given["num_attention_heads"] and "head_dim" not in given:
        raise UnknownCheckpoint(
            f"config.json: hidden_size {given['hidden_size']} is no multiple of num_attention_heads "
            f"{given['num_attention_heads']}, and there is no head_dim"
        )


def _unused_window(given: Mapping[str, Any]) -> bool:
    """Whether a window is given that `use_sliding_window` switches off, as Qwen2's files have it."""
    return given.get("model_type") == "qwen2" and not given.get("use_sliding_window", False)
