"""The names of EVE's tensors as baaivision/EVE has them, versions 1 and 2 (arXiv 2406.11832, 2502.06788)."""

from __future__ import annotations

from collections.abc import Iterable

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, rename
from multimodal_zoo.checkpoints.tables.causal_decoder import BLOCK, decoder_rules

_TOWER, _EMBEDDING = "model.vision_tower.", "vision_embedding."
_ALIGNER, _TEACHER = "model.vision_tower_compressor.", "model.vision_clip."


def _attention(name: str) -> list[Rule]:
    theirs, ours = f"{_TOWER}{name}.", f"{_EMBEDDING}{name}."
    parts = {"q.0.*": "query_norm.*", "q.1.weight": "query.weight", "kv.0.*": "key_norm.*",
             "kv.1.weight": "key_value.weight", "proj.*": "proj.*"}  # fmt: skip
    return [rename(theirs + one, ours + other) for one, other in parts.items()]


_TOKENS = [rename(f"{_TOWER}{name}_embedding", f"{_EMBEDDING}{name}_token") for name in ("class", "split")]
_DECODER = decoder_rules(ours="decoder.")
_V1 = [
    *_DECODER,
    *_TOKENS,
    rename(f"{_TOWER}patch_embedding.weight", f"{_EMBEDDING}patches.weight"),
    *_attention("local_attention"),
    *_attention("global_attention"),
    rename("model.mm_projector.*", f"{_EMBEDDING}projector.*"),
]
_ALIGNING = [
    rename(f"{_ALIGNER}norm_layer.{{}}.0.*", "aligner.norms.{}.*"),
    rename(f"{_ALIGNER}norm_layer.{{}}.1.weight", "aligner.projections.{}.weight"),
    rename(f"{_ALIGNER}input_layer.*", "aligner.input_layer.*"),
    rename(f"{_ALIGNER}output_layer.*", "aligner.output_layer.*"),
]
#: The teacher lies in training checkpoints, twice; it has a file of its own elsewhere.
_TEACHERS = [drop(f"{_TEACHER}*"), drop(f"{_ALIGNER}clip_layer.*")]


def _decoupled(theirs: str, ours: str) -> list[Rule]:
    """The lines of one kind of token's weights in every block.

    Args:
        theirs: prefix of a module's name, `moe_` for pictures; behind `self_attn.` where there is that.
        ours: `text` or `vision`.
    """
    rules = []
    for name, own in BLOCK:
        _, place, module = name.rpartition("self_attn.")
        rules.append(rename(f"model.layers.{{}}.{place}{theirs}{module}", f"decoder.blocks.layers.{{}}.{ours}.{own}"))
    return rules


_DIRECT = [
    *_TOKENS,
    rename(f"{_TOWER}patch_embedding.0.*", f"{_EMBEDDING}patches.*"),
    rename(f"{_TOWER}patch_embedding.2.*", f"{_EMBEDDING}cells.*"),
]
_V2 = [
    rename("model.embed_tokens.weight", "decoder.token_embedding.weight"),
    rename("lm_head.weight", "decoder.output.weight"),
    rename("model.norm.weight", "decoder.norm.weight"),
    *_decoupled("", "text"),
    *_decoupled("moe_", "vision"),
    *_DIRECT,
    drop("model.layers.{}.self_attn.rotary_emb.inv_freq"),
]

#: Version 1, for inference: what only training needs is left out where a file has it.
EVE = Naming("eve", [*_V1, drop(f"{_ALIGNER}*"), drop(f"{_TEACHER}*")])
#: Version 1 with its aligning layer.
EVE_TRAINING = Naming("eve_training", [*_V1, *_ALIGNING, *_TEACHERS])
#: Version 2.
EVE_V2 = Naming("eve_v2", _V2)
#: Version 2 in its first stage, when pictures have no weights of their own yet.
EVE_V2_STAGE0 = Naming("eve_v2_stage0", [*_DECODER, *_DIRECT])
ALL = (EVE, EVE_TRAINING, EVE_V2, EVE_V2_STAGE0)


def kind_of(names: Iterable[str]) -> tuple[int, bool] | None:
    """The version of EVE that tensors are of, and whether pictures have weights of their own; None for no EVE.

    Args:
        names: ours.
    """
    found = list(names)
    first = any(name.startswith(f"{_EMBEDDING}local_attention.") for name in found)
    if not first and not any(name.startswith(f"{_EMBEDDING}cells.") for name in found):
        return None
    return 1 if first else 2, any(name.startswith("decoder.blocks.") and ".vision." in name for name in found)


def mismatch(file: Iterable[str], model: Iterable[str]) -> str | None:
    """What to change where a checkpoint of one kind of EVE met a model of another; None where that is not so.

    Args:
        file: our names of the checkpoint's tensors.
        model: the model's names.
    """
    theirs, ours = kind_of(file), kind_of(model)
    if theirs is None or ours is None or theirs == ours:
        return None
    variants = {1: "eve_7b or eve_7b_hd", 2: "eve_v2_7b_hd"}
    if theirs[0] != ours[0]:
        return (
            f"it holds EVE of version {theirs[0]}, the model is EVE of version {ours[0]}: choose a model of version "
            f"{theirs[0]} ({variants[theirs[0]]}; in a recipe model=NAME, in Python config=NAME), or weights of "
            f"version {ours[0]}"
        )
    if ours[1]:
        return (
            "its blocks have no weights of their own for pictures, the model's have: initial_weights={model: PLACE, "
            "copy_vision_branch: true} begins with a copy of the text's, and decoder@model.decoder=qwen2_5_7b takes a "
            "decoder without them"
        )
    return (
        "its blocks have weights of their own for pictures, the model's have none: model.decoder needs "
        "decoupled_block, as in decoder@model.decoder=qwen2_5_7b_decoupled"
    )
