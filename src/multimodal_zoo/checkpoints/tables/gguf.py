"""The names of LLaMA's tensors as llama.cpp has them in GGUF files, and a decoder's node from a file's facts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, rename
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.gguf_header import GgufHeader

Node = dict[str, Any]
_BLOCK = [
    ("attn_norm.weight", "norm_1.weight"),
    ("attn_q.*", "attention.qkv.query.*"),
    ("attn_k.*", "attention.qkv.key.*"),
    ("attn_v.*", "attention.qkv.value.*"),
    ("attn_output.*", "attention.out.*"),
    ("ffn_norm.weight", "norm_2.weight"),
    ("ffn_gate.weight", "mlp.gate.weight"),
    ("ffn_up.weight", "mlp.up.weight"),
    ("ffn_down.weight", "mlp.down.weight"),
]
#: Architecture of a file -> `model_type` of the same family at Hugging Face.
FAMILIES = {"llama": "llama", "qwen2": "qwen2"}
#: Keys of a `config.json` -> those of a file, behind the architecture.
_SIZES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
}


def _rules() -> list[Rule]:
    return [
        rename("token_embd.weight", "token_embedding.weight"),
        rename("output_norm.weight", "norm.weight"),
        rename("output.weight", "output.weight"),
        *(rename(f"blk.{{}}.{theirs}", f"blocks.layers.{{}}.{ours}") for theirs, ours in _BLOCK),
    ]


#: Every decoder of the family; with tied matrices the file has no output layer.
GGUF = Naming("gguf", _rules())


def node_from_gguf(header: GgufHeader) -> Node:
    """The node of a `causal_decoder` for a file's tensors.

    Raises:
        UnknownCheckpoint: another architecture, a size that is not given, or stretched positions.
    """
    return node_from_hf(config_from_gguf(header))


def config_from_gguf(header: GgufHeader) -> Node:
    """What the `config.json` of the same model says, from a file's facts.

    Raises:
        UnknownCheckpoint: see `node_from_gguf`.
    """
    family = FAMILIES.get(header.architecture)
    if family is None:
        raise UnknownCheckpoint(
            f"general.architecture is {header.architecture!r}; GGUF files are read of {', '.join(FAMILIES)}"
        )
    if (scaling := header.size("rope.scaling.type", "none")) != "none" or "rope_freqs.weight" in header.tensors:
        raise UnknownCheckpoint(f"positions are stretched ({scaling}); GGUF files are read without that only")
    sizes = {ours: header.size(theirs) for ours, theirs in _SIZES.items()}
    if lacking := [_SIZES[key] for key, value in sizes.items() if value is None]:
        raise UnknownCheckpoint(f"a GGUF file without {header.architecture}.{lacking[0]}")
    heads = sizes["num_attention_heads"]
    head_dim = header.size("attention.key_length", sizes["hidden_size"] // heads)
    if (turned := header.size("rope.dimension_count", head_dim)) != head_dim:
        raise UnknownCheckpoint(f"{turned} of the {head_dim} columns of a head are rotated; the decoder rotates all")
    return {
        **sizes,
        "model_type": family,
        "vocab_size": _vocabulary(header),
        "num_key_value_heads": header.size("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": shortest(header.size("attention.layer_norm_rms_epsilon", 1e-6)),
        "rope_theta": shortest(header.size("rope.freq_base", 1e4)),
        "attention_bias": "blk.0.attn_q.bias" in header.tensors and family == "llama",
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


def _vocabulary(header: GgufHeader) -> int:
    """The number of ids: that of the embeddings, which some files pad beyond their tokens."""
    if "token_embd.weight" not in header.tensors:
        raise UnknownCheckpoint("a GGUF file without token_embd.weight")
    return header.tensors["token_embd.weight"].shape[0]


def shortest(value: float) -> float:
    """The number with the fewest digits that float32 rounds to a file's: 1e-5, say, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if math.isfinite(value) else value
