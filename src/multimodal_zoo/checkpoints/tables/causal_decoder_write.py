"""The `config.json` of a decoder of the LLaMA family, made from a node: the way back of `causal_decoder_config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.causal_decoder_config import SCALINGS, node_from_hf
from multimodal_zoo.checkpoints.tables.nodes import differences, essence

Node = dict[str, Any]
#: Keys of a node that change neither the tensors nor what they compute.
_ELSEWHERE = ("std", "init", "kernel", "checkpoint", "drop_path", "processor", "card")
#: Keys that act in training alone; LLaMA's configurations lack them.
_TRAINING = (*_ELSEWHERE, "layer_scale", "embedding_dropout")
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "Emu3": "Emu3ForCausalLM",
    "emu3_text_model": "Emu3ForCausalLM",
}  # fmt: skip


def decoder_config(node: Mapping[str, Any], kind: str | None = None) -> Node:
    """The configuration of a `causal_decoder`.

    Args:
        node: of the decoder.
        kind: its `model_type`; None for LLaMA's, or Qwen2's where queries, keys and values alone have a bias.

    Raises:
        UnknownCheckpoint: a decoder that no such configuration describes, with the first parts that differ.
    """
    if node.get("type") != "causal_decoder":
        raise UnknownCheckpoint(f"a decoder of the LLaMA family is a causal_decoder; this is {node.get('type')!r}")
    try:
        config = _sizes(node, kind)
    except (KeyError, TypeError) as error:
        raise UnknownCheckpoint(f"no decoder of the LLaMA family: it has no {error} where one has") from error
    ignored = _ELSEWHERE if kind in ("Emu3", "emu3_text_model") else _TRAINING
    ignored = (*ignored, "embedding_dropout") if kind == "emu3_text_model" else ignored
    ours, theirs = (essence(one, ignored, empty=(None, False)) for one in (node, node_from_hf(config)))
    if differing := differences(ours, theirs):
        raise UnknownCheckpoint(f"a config.json of {config['model_type']} has no key for {', '.join(differing[:5])}")
    return config


def language_model_config(node: Mapping[str, Any]) -> Node:
    """The configuration of a `language_model`: that of its decoder.

    Raises:
        UnknownCheckpoint: see `decoder_config`; or another model.
    """
    if node.get("type") != "language_model":
        raise UnknownCheckpoint(f"a model of texts alone is a language_model; this is {node.get('type')!r}")
    return decoder_config(node["decoder"])


def _sizes(node: Mapping[str, Any], kind: str | None) -> Node:
    block = node["blocks"]["block"]
    attention, qkv = block["attention"], block["attention"]["qkv"]
    kind = kind or ("qwen2" if qkv["biased"] and not attention["output_bias"] else "llama")
    biases = {"attention_bias": attention["output_bias"], "mlp_bias": False} if kind == "llama" else {}
    usual = qkv["head_dim"] * qkv["heads"] == node["width"]
    if kind == "Emu3" and not usual:
        raise UnknownCheckpoint(f"Emu3's configuration has no key for model.decoder...qkv.head_dim={qkv['head_dim']}")
    return {
        "architectures": [_ARCHITECTURES[kind]],
        "model_type": kind,
        "vocab_size": node["vocab_size"],
        "hidden_size": node["width"],
        "intermediate_size": block["mlp"]["hidden"],
        "num_hidden_layers": node["blocks"]["depth"],
        "num_attention_heads": qkv["heads"],
        "num_key_value_heads": qkv["kv_heads"],
        **({} if usual and kind != "llama" else {"head_dim": qkv["head_dim"]}),
        "hidden_act": "silu",
        "max_position_embeddings": node["rotary"].get("trained", node["max_positions"]),
        "rms_norm_eps": node["norm"]["eps"],
        "rope_theta": node["rotary"]["base"],
        "rope_scaling": _scaling(node["rotary"]),
        **biases,
        "attention_dropout": attention["dropout"],
        "initializer_range": node.get("std", 0.02),
        "tie_word_embeddings": node.get("tied", False),
        "pad_token_id": node.get("pad_id"),
    }


def _scaling(rotary: Mapping[str, Any]) -> Node | None:
    """How positions are stretched, in the words of older and of newer readers."""
    kind = next((kind for kind, part in SCALINGS.items() if part == rotary["type"]), rotary["type"])
    return None if kind == "default" else {"type": kind, "rope_type": kind, "factor": rotary.get("factor")}
