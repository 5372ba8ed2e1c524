"""The names of Emu's and Emu2's tensors as baaivision/Emu has them (arXiv 2307.05222, 2312.13286)."""

from __future__ import annotations

import re

from torch import Tensor

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, lead, rename
from multimodal_zoo.checkpoints.tables import diffusion
from multimodal_zoo.checkpoints.tables.causal_decoder import decoder_rules
from multimodal_zoo.checkpoints.tables.eva_clip import bare_tower

_FORMER, _LAYER = "cformer.cformer.", "cformer.cformer.block.{}.layer."
_OURS = "connector.blocks.{}."


def _attention(place: str, ours: str, inner: str) -> list[Rule]:
    parts = {"q": "query", "k": "key", "v": "value"}
    return [
        *(rename(f"{place}.{their}.weight", f"{ours}.{inner}{own}.weight") for their, own in parts.items()),
        rename(f"{place}.o.weight", f"{ours}.out.weight"),
    ]


_CAUSAL_FORMER = [
    rename("ln_visual.*", "connector.context_norm.*"),
    lead("cformer.causal_tokens", "connector.tokens"),
    rename(f"{_FORMER}block.0.layer.0.SelfAttention.relative_attention_bias.weight", "connector.positions.weight"),
    *_attention(f"{_LAYER}0.SelfAttention", f"{_OURS}attention", "qkv."),
    *_attention(f"{_LAYER}1.EncDecAttention", f"{_OURS}cross_attention", ""),
    *(rename(f"{_LAYER}{n}.layer_norm.weight", f"{_OURS}norm_{n + 1}.weight") for n in range(3)),
    rename(f"{_LAYER}2.DenseReluDense.wi.weight", f"{_OURS}mlp.fc1.weight"),
    rename(f"{_LAYER}2.DenseReluDense.wo.weight", f"{_OURS}mlp.fc2.weight"),
    rename(f"{_FORMER}final_layer_norm.weight", "connector.norm.weight"),
    rename("cformer.projection.*", "connector.projection.*"),
    drop(f"{_FORMER}embed_tokens.weight"),  # T5's words, which nothing reads
]


_ENCODER = [*bare_tower("visual.", "image_encoder."), drop("visual.norm.*"), drop("visual.head.*")]


#: Emu, pretrained. The norm and the head behind the tower are in the file and unused.
EMU = Naming(
    "emu",
    [
        *_ENCODER,
        *_CAUSAL_FORMER,
        *decoder_rules("decoder.lm.model.", "decoder.lm.lm_head.", "decoder."),
        rename("decoder.lm.stu_regress_head.weight", "regression_head.weight"),
    ],
)


_WRAPPED = "decoder.lm.base_model.model."
#: Layers with adapters, and our names of these.
_ADAPTED = {"q": "qkv.query", "k": "qkv.key", "v": "qkv.value", "o": "out"}


def _merge(tensors: list[Tensor]) -> list[Tensor]:
    """A matrix with its adapter, whose scale is 1 (alpha and rank are 16)."""
    weight, down, up = tensors
    return [(weight.float() + up.float() @ down.float()).to(weight.dtype)]


def _split(tensors: list[Tensor]) -> list[Tensor]:
    raise CheckpointError("a merged matrix cannot be written as a matrix and its adapter: save under another naming")


def _instruct(name: str, base: str, merged: bool) -> Naming:
    """Emu-I, whose language model peft wrapped.

    Args:
        name: of the table.
        base: what newer versions of peft put before the weight of an adapted layer.
        merged: whether adapters go into the matrices.
    """
    plain = decoder_rules(f"{_WRAPPED}model.", f"{_WRAPPED}lm_head.", "decoder.", biased=False)
    rules = [rule for rule in plain if not any(re.search(r"self_attn\.[qkvo]_proj", name) for name in rule.theirs)]
    for their, own in _ADAPTED.items():
        place = f"{_WRAPPED}model.layers.{{}}.self_attn.{their}_proj."
        layer = f"decoder.blocks.layers.{{}}.attention.{own}."
        names = (f"{place}{base}weight", f"{place}lora_A.default.weight", f"{place}lora_B.default.weight")
        if merged:
            rules.append(Rule(names, (f"{layer}weight",), _merge, _split, copies=True))
        else:
            ours = (f"{layer}weight", f"{layer}adapter.down", f"{layer}adapter.up")
            rules += [rename(theirs, mine) for theirs, mine in zip(names, ours, strict=True)]
    head = rename(f"{_WRAPPED}stu_regress_head.weight", "regression_head.weight")
    return Naming(name, [*_ENCODER, *_CAUSAL_FORMER, *rules, head])


#: Emu-I with its adapters, as the peft of 2023 and as newer ones name it; and with these merged into the matrices.
EMU_INSTRUCT = _instruct("emu_instruct", "", merged=False)
EMU_INSTRUCT_NEW = _instruct("emu_instruct_new", "base_layer.", merged=False)
EMU_INSTRUCT_MERGED = _instruct("emu_instruct_merged", "", merged=True)
EMU_INSTRUCT_NEW_MERGED = _instruct("emu_instruct_new_merged", "base_layer.", merged=True)


def _second(name: str, prefix: str, outer: str = "") -> Naming:
    return Naming(
        name,
        [
            *bare_tower(f"{outer}{prefix}visual.", "image_encoder."),
            *decoder_rules(f"{outer}{prefix}decoder.lm.model.", f"{outer}{prefix}decoder.lm.lm_head.", "decoder."),
            rename(f"{outer}project_up.weight", "input_projection.weight"),
            rename(f"{outer}project_down.weight", "regression_head.weight"),
        ],
    )


#: Emu2 and its relatives as the Hub has them.
EMU2 = _second("emu2", "model.")
#: The same in single files.
EMU2_NATIVE = _second("emu2_native", "")
#: Emu2-Gen in one file.
EMU2_GEN = _second("emu2_gen", "", "multimodal_encoder.") + diffusion.PARTS.under("", "visual_decoder.")
ALL = (
    EMU,
    EMU_INSTRUCT,
    EMU_INSTRUCT_NEW,
    EMU_INSTRUCT_MERGED,
    EMU_INSTRUCT_NEW_MERGED,
    EMU2,
    EMU2_NATIVE,
    EMU2_GEN,
)
