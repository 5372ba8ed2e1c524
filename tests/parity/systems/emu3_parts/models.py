"""Emu3's cases: the decoder alone, and the whole model in transformers' names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from torch import Tensor

from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.tables.causal_decoder import LLAMA, LLAMA_TIED
from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.decoders.causal_decoder import CausalDecoder
from multimodal_zoo.nn.masks import Padding
from multimodal_zoo.registry import build

#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
#: Keys of a decoder's configuration; ids of single tokens concern the processor.
DECODER_KEYS = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta", "rope_scaling",
    "attention_dropout", "tie_word_embeddings", "pretraining_tp", "initializer_range", "pad_token_id", "bos_token_id",
    "eos_token_id", "model_type", "img_token_id", "boi_token_id", "eoi_token_id", "eol_token_id", "eof_token_id",
}  # fmt: skip
#: The decoder's tensors in a checkpoint that holds others too.
DECODER_NAMES = ("model.embed_tokens.", "model.layers.", "model.norm.", "lm_head.")


def decoder(config: Mapping[str, Any], state: Mapping[str, Tensor], model_type: str = "Emu3") -> CausalDecoder:
    """The decoder of a configuration in the published names, with its weights, in evaluation mode.

    Args:
        config: keys of the published `config.json`, no others.
        state: tensors by published name; those of a visual tokenizer beside them are left alone.
        model_type: whose defaults a key has that is left out.
    """
    take_known(config, DECODER_KEYS, "config")
    model = build(node_from_hf({"model_type": model_type, **config}), path="model")
    own = {name: tensor for name, tensor in state.items() if name.startswith(DECODER_NAMES)}
    load_into(model, own, LLAMA_TIED if model.output is None and "lm_head.weight" in own else LLAMA)
    return model.eval()


def _model(case: Case) -> CausalDecoder:
    return case.once("decoder", lambda: decoder(case.config, case.state))


@torch.no_grad()
def whole(request: Request) -> Outcome:
    """Logits from the left edge, and what the first block does on the way."""
    (ids,) = request.case.take(request.call)
    model = _model(request.case)
    block, seen = model.blocks.layers[0], {}
    points = {"embed": model.token_embedding, "layer0_norm1": block.norm_1, "layer0_attn": block.attention,
              "layer0_mlp": block.mlp, "layer0_out": block, "final_norm": model.norm}  # fmt: skip
    hooks = [
        part.register_forward_hook(lambda _part, _given, result, name=name: seen.update({name: result}))
        for name, part in points.items()
    ]
    hidden = model(ids)
    for hook in hooks:
        hook.remove()
    rotation = model.rotary(torch.arange(ids.shape[1]))
    query, key, _ = block.attention.qkv(seen["layer0_norm1"])
    rotated = {"layer0_q_rot": rotation(query)[:1], "layer0_k_rot": rotation(key)[:1]}
    slices = [slice(0, 7), torch.arange(7, model.vocab_size)]
    cut = torch.cat([model.head(hidden, rows=rows) for rows in slices], dim=-1)
    return {**seen, **rotated, "logits": (model.head(hidden), cut, _at_places(model, ids))}


def _at_places(model: CausalDecoder, ids: Tensor) -> Tensor:
    """The same logits, every place asked for by name."""
    places = torch.arange(ids.shape[1]).expand_as(ids)
    return model.head(model(ids, places=places))


@torch.no_grad()
def at_positions(request: Request) -> Outcome:
    """Logits at given positions."""
    ids, positions = request.case.take(request.call)
    model = _model(request.case)
    return {request.call.outputs[0]: model.head(model(ids, positions=positions))}


@torch.no_grad()
def padded(request: Request) -> Outcome:
    """Logits of padded rows, zero at padding: rows at once, and each row without its padding."""
    ids, mask, positions = request.case.take(request.call)
    model, real = _model(request.case), mask.bool()
    together = model.head(model(ids, positions=positions, mask=Padding(real))) * real[..., None]
    alone = torch.zeros_like(together)
    for row, kept in enumerate(real):
        alone[row, kept] = model.head(model(ids[row : row + 1, kept]))[0]
    return {request.call.outputs[0]: (together, alone)}


@torch.no_grad()
def cached(request: Request) -> Outcome:
    """Logits of a first part at once and of the others one by one."""
    (ids,) = request.case.take(request.call)
    model, steps = _model(request.case), int(request.match[1])
    assert steps == int(request.match[2])
    cache, cut = model.cache(len(ids), ids.shape[1]), ids.shape[1] - steps
    pieces = [ids[:, :cut], *ids[:, cut:].split(1, dim=1)]
    return {request.call.outputs[0]: torch.cat([model.head(model(piece, cache=cache)) for piece in pieces], dim=1)}


def _is_decoder(case: Case, call: Any) -> bool:
    return "hidden_size" in case.config


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"forward\(input_ids\)", _is_decoder)(whole)
    system.call(r"forward\(input_ids, position_ids\)", _is_decoder)(at_positions)
    system.call(r"forward\(input_ids, mask, position_ids\)", _is_decoder)(padded)
    system.call(r"prefill L-(\d+) then (\d+) cached single-token steps", _is_decoder)(cached)
