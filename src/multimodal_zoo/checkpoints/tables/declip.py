"""The names of DeCLIP's tensors, and of CLIP, SLIP, FILIP and DeFILIP as its repository trains them.

Sense-GVT/DeCLIP (arXiv 2110.05208, 2203.05796) keeps OpenAI's image tower, puts the text tower under `encode_text.`
(SLIP: `text_encoder.`), gives its projection a bias, and keeps the temperature as a vector of one. `visual.conv1` is
the patches of its vision transformers and the stem of its ResNets, so that each tower has a table.
"""

from __future__ import annotations

import torch

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import COUNTERS, Fallback, Rule, rename, reshape
from multimodal_zoo.checkpoints.tables.clip import OPENAI_IMAGE, openai_blocks

#: Width of the linear layer behind the mean of a ResNet's map, whatever the tower's.
MEAN_WIDTH = 2048
#: That layer: training at 224 pixels never reaches it, so that files may leave it out; zeros say more than noise.
_MEAN = "image.pool.mean.output"
IDLE_LAYER = [
    Fallback(f"{_MEAN}.weight", "image.pool.attention.output.weight", lambda shape: torch.zeros(shape[0], MEAN_WIDTH)),
    Fallback(f"{_MEAN}.bias", "image.pool.attention.output.bias", torch.zeros),
]


def _vit() -> list[Rule]:
    """OpenAI's vision transformer and its projection."""
    return [rule for rule in OPENAI_IMAGE.rules if rule.theirs != ("logit_scale",)]


def _resnet(pool: list[Rule]) -> list[Rule]:
    """CLIP's ResNet, and the rules of what stands behind its last map."""
    rules = []
    for i in (1, 2, 3):
        rules.append(rename(f"visual.conv{i}.weight", f"image.stem.convolution_{i}.weight"))
        rules.append(rename(f"visual.bn{i}.*", f"image.stem.norm_{i}.*"))
    for stage in range(4):
        theirs, ours = f"visual.layer{stage + 1}.{{}}", f"image.stages.{stage}.{{}}"
        for i in (1, 2, 3):
            rules.append(rename(f"{theirs}.conv{i}.weight", f"{ours}.convolution_{i}.weight"))
            rules.append(rename(f"{theirs}.bn{i}.*", f"{ours}.norm_{i}.*"))
        rules.append(rename(f"{theirs}.downsample.0.weight", f"{ours}.shortcut.convolution.weight"))
        rules.append(rename(f"{theirs}.downsample.1.*", f"{ours}.shortcut.norm.*"))
    return rules + pool


def _attention_pool(ours: str, names: dict[str, str]) -> list[Rule]:
    return [
        rename("visual.attnpool.positional_embedding", f"{ours}.positions"),
        *(rename(f"visual.attnpool.{a}.*", f"{ours}.{b}.*") for a, b in names.items()),
    ]


def _text(theirs: str) -> list[Rule]:
    return [
        rename(f"{theirs}.token_embedding.weight", "text.token_embedding.weight"),
        rename(f"{theirs}.positional_embedding", "text.positions"),
        *openai_blocks(f"{theirs}.transformer.resblocks", "text.blocks.layers"),
        rename(f"{theirs}.ln_final.*", "text.norm.*"),
        rename(f"{theirs}.text_projection.*", "text_projection.*"),
        reshape("logit_scale", "logit_scale.weight", shape=(), their_shape=(1,)),
    ]


def _layers(theirs: str, ours: str, names: dict[str, str]) -> list[Rule]:
    return [rename(f"{theirs}.{a}.*", f"{ours}.{b}.*") for a, b in names.items()]


_NORMED = {"linear1": "linear1", "bn1": "norm1", "linear2": "linear2", "bn2": "norm2", "linear3": "linear3"}
_HEADS = [
    *_layers("projector", "heads.simsiam.projector", {**_NORMED, "bn3": "norm3"}),
    *_layers("predictor", "heads.simsiam.predictor", {"linear1": "linear1", "bn1": "norm1", "layer2": "linear2"}),
    rename("text_label_predictor.*", "heads.masked_words.*"),
    rename("image_mapping.*", "heads.token_wise.image.*"),
    rename("text_mapping.*", "heads.token_wise.text.*"),
    rename("logit_scale_dense", "heads.token_wise.logit_scale.weight"),
]
_SLIP_HEAD = _layers("predictor_sim", "heads.simclr", {**_NORMED, "bn3": "idle_norm"})
_QKV = {"q_proj": "qkv.query", "k_proj": "qkv.key", "v_proj": "qkv.value"}
#: Attention for maps of one size, a linear layer behind the mean for others.
_SWITCH = [
    *_attention_pool("image.pool.attention", {**_QKV, "c_proj": "output"}),
    rename("visual.fc.*", "image.pool.mean.output.*"),
]
#: SLIP's own ResNet: the linear layer stands behind the attention and leads to the common space.
_SLIP_POOL = [*_attention_pool("image.pool", _QKV), rename("visual.fc.*", "image_projection.*")]

VIT = Naming("declip", [*_vit(), *_text("encode_text"), *_HEADS], [COUNTERS])
RESNET = Naming("declip_resnet", [*_resnet(_SWITCH), *_text("encode_text"), *_HEADS], [COUNTERS, *IDLE_LAYER])
SLIP_VIT = Naming("declip_slip", [*_vit(), *_text("text_encoder"), *_SLIP_HEAD], [COUNTERS])
SLIP_RESNET = Naming("declip_slip_resnet", [*_resnet(_SLIP_POOL), *_text("text_encoder"), *_SLIP_HEAD], [COUNTERS])
ALL = (VIT, RESNET, SLIP_VIT, SLIP_RESNET)
