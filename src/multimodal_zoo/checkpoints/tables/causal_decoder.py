"""The names of LLaMA's tensors as Hugging Face has them (arXiv 2302.13971): LLaMA, Qwen2, SmolLM2, Emu3's decoder."""

from __future__ import annotations

import torch
from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, rename

#: Names inside of a block, theirs and ours.
BLOCK = [
    ("input_layernorm.weight", "norm_1.weight"),
    ("self_attn.q_proj.*", "attention.qkv.query.*"),
    ("self_attn.k_proj.*", "attention.qkv.key.*"),
    ("self_attn.v_proj.*", "attention.qkv.value.*"),
    ("self_attn.o_proj.*", "attention.out.*"),
    ("post_attention_layernorm.weight", "norm_2.weight"),
    ("mlp.gate_proj.*", "mlp.gate.*"),
    ("mlp.up_proj.*", "mlp.up.*"),
    ("mlp.down_proj.*", "mlp.down.*"),
]
_EMBEDDING = "token_embedding.weight"


def decoder_rules(
    body: str = "model.", head: str = "lm_head.", ours: str = "", *, tied: bool = False, biased: bool = True
) -> list[Rule]:
    """The lines of a decoder whose tensors stand below two prefixes.

    Args:
        body: before everything but the output layer.
        head: before the output layer's weight.
        ours: before our names.
        tied: whether the file writes the token embeddings a second time as the output layer.
        biased: whether layers may have more than a weight; adapters beside them are named by other rules.
    """
    block = BLOCK if biased else [(a.replace("*", "weight"), b.replace("*", "weight")) for a, b in BLOCK]
    pair = (f"{body}embed_tokens.weight", f"{head}weight")
    matrices = [_same(*pair)] if tied else [rename(pair[0], _EMBEDDING), rename(pair[1], "output.weight")]
    rules = [
        *matrices,
        *(rename(f"{body}layers.{{}}.{theirs}", f"blocks.layers.{{}}.{own}") for theirs, own in block),
        rename(f"{body}norm.weight", "norm.weight"),
        drop(f"{body}layers.{{}}.self_attn.rotary_emb.inv_freq"),  # files written before transformers 4.32
    ]
    return [rule.under("", ours) for rule in rules]


def _same(embedding: str, output: str) -> Rule:
    """One matrix under two names."""

    def to_ours(tensors: list[Tensor]) -> list[Tensor]:
        """The first, once both are seen to be the same."""
        first, second = tensors
        alike = first.shape == second.shape and (first.is_meta or torch.equal(first, second))
        if not alike:
            raise CheckpointError(f"{output} differs from {embedding}, but the configuration ties them")
        return [first]

    return Rule((embedding, output), (_EMBEDDING,), to_ours, lambda tensors: [tensors[0], tensors[0]])


#: Every decoder of the family; with tied matrices the file has one of them.
LLAMA = Naming("llama", decoder_rules())
#: The same with tied matrices that the file holds twice.
LLAMA_TIED = Naming("llama_tied", decoder_rules(tied=True))
#: The same inside a model of texts alone (`language_model`): CapsFus-LLaMA.
LANGUAGE_MODEL = Naming("language_model", decoder_rules(ours="decoder."))
ALL = (LLAMA, LLAMA_TIED, LANGUAGE_MODEL)
