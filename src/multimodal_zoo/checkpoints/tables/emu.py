"""The names of Emu's and Emu2's tensors as baaivision/Emu has them (arXiv 2307.05222, 2312.13286)."""

from __future__ import annotations

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, lead, rename
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


def _decoder(body: str, head: str) -> list[Rule]:
    return [rule.under("", "decoder.") for rule in decoder_rules(body, head)]


#: Emu, pretrained. The norm and the head behind the tower are in the file and unused.
EMU = Naming(
    "emu",
    [
        *bare_tower("visual.", "image_encoder."),
        drop("visual.norm.*"),
        drop("visual.head.*"),
        *_CAUSAL_FORMER,
        *_decoder("decoder.lm.model.", "decoder.lm.lm_head."),
        rename("decoder.lm.stu_regress_head.weight", "regression_head.weight"),
    ],
)


def _second(name: str, prefix: str) -> Naming:
    return Naming(
        name,
        [
            *bare_tower(f"{prefix}visual.", "image_encoder."),
            *_decoder(f"{prefix}decoder.lm.model.", f"{prefix}decoder.lm.lm_head."),
            rename("project_up.weight", "input_projection.weight"),
            rename("project_down.weight", "regression_head.weight"),
        ],
    )


#: Emu2 and its relatives as the Hub has them.
EMU2 = _second("emu2", "model.")
#: The same in single files.
EMU2_NATIVE = _second("emu2_native", "")
ALL = (EMU, EMU2, EMU2_NATIVE)
