"""The names of EVA-CLIP's tensors in the original files, in the Hub's `EvaCLIPModel`, and in timm and open_clip.

The original files (arXiv 2303.15389, 2402.04252) keep the image tower under `visual.` and the text tower under `text.`.
One table serves every architecture: packed or separate queries, keys and values, plain or gated MLP, either pooling.
"""

from __future__ import annotations

import math

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.rules import Rule, drop, filled, lead, pack, rename, reshape
from multimodal_zoo.checkpoints.tables.clip import OPENAI_TEXT

_BLOCK = "image.blocks.layers.{}"
_SCALE = "logit_scale.weight"
#: Rotary tables that files hold although they follow from the sizes: per block or per tower, of either shape.
TABLES = [drop(f"{place}freqs_{name}") for place in ("", "*.") for name in ("cos", "sin")]


def _lines(theirs: str, ours: str, pairs: list[tuple[str, str]]) -> list[Rule]:
    """Renamed tensors below two prefixes."""
    return [rename(f"{theirs}{a}", f"{ours}{b}") for a, b in pairs]


_BLOCK_NAMES = [
    ("norm1.*", "norm_1.*"),
    ("norm2.*", "norm_2.*"),
    ("gamma_1", "scale_1.weight"),
    ("gamma_2", "scale_2.weight"),
    ("attn.qkv.weight", "attention.qkv.weight"),
    ("attn.q_proj.weight", "attention.qkv.query.weight"),
    ("attn.k_proj.weight", "attention.qkv.key.weight"),
    ("attn.v_proj.weight", "attention.qkv.value.weight"),
    ("attn.proj.*", "attention.out.*"),
    ("mlp.fc1.*", "mlp.fc1.*"),
]
_ORIGINAL_NAMES = [
    ("attn.q_bias", "attention.qkv.q_bias"),
    ("attn.v_bias", "attention.qkv.v_bias"),
    ("attn.inner_attn_ln.*", "attention.inner_norm.*"),
    ("mlp.fc2.*", "mlp.fc2.*"),
    ("mlp.w1.*", "mlp.gate.*"),
    ("mlp.w2.*", "mlp.up.*"),
    ("mlp.w3.*", "mlp.down.*"),
    ("mlp.ffn_ln.*", "mlp.inner_norm.*"),
]


def bare_tower(prefix: str, ours: str = "image.") -> list[Rule]:
    """An original EVA tower up to its last block: no norm behind it, no head.

    Args:
        prefix: before its names in the file.
        ours: before its names here.
    """
    blocks = _lines(f"{prefix}blocks.{{}}.", f"{ours}blocks.layers.{{}}.", [*_BLOCK_NAMES, *_ORIGINAL_NAMES])
    return [*_stem(prefix, ours), *blocks]


def _stem(prefix: str, ours: str) -> list[Rule]:
    return [
        lead(f"{prefix}cls_token", f"{ours}prefix.weight"),
        lead(f"{prefix}pos_embed", f"{ours}positions.weight"),
        rename(f"{prefix}patch_embed.proj.*", f"{ours}patches.*"),
    ]


def _tower(prefix: str) -> list[Rule]:
    """What every EVA tower has around its blocks."""
    return [
        *_stem(prefix, "image."),
        rename(f"{prefix}norm.*", "image.pool.norm.*"),
        rename(f"{prefix}fc_norm.*", "image.pool.mean_norm.*"),
        rename(f"{prefix}head.*", "image_projection.*"),
        *_lines(f"{prefix}blocks.{{}}.", f"{_BLOCK}.", _BLOCK_NAMES),
    ]


def _text(prefix: str) -> list[Rule]:
    """OpenAI's text tower, in which the first release has layer scales."""
    scales = [
        rename(f"{prefix}transformer.resblocks.{{}}.ls_{i}.gamma", f"text.blocks.layers.{{}}.scale_{i}.weight")
        for i in (1, 2)
    ]
    return [*OPENAI_TEXT.under(prefix, "").rules, *scales]


_IMAGE = [*_tower("visual."), *_lines("visual.blocks.{}.", f"{_BLOCK}.", _ORIGINAL_NAMES), *TABLES]
#: All files of the published models.
ORIGINAL = Naming("eva_clip", [*_IMAGE, *_text("text."), rename("logit_scale", _SCALE)])
#: The class that keeps the text tower at the root, as OpenAI does.
ROOT_TEXT = Naming("eva_clip_root_text", [*_IMAGE, *_text(""), rename("logit_scale", _SCALE)])
#: The first release, `eva_clip_psz14.pt`.
TEXT_SCALE = Naming("eva_clip_text_scale", [*_IMAGE, *_text("text."), rename("text.logit_scale", _SCALE)])
#: An image tower alone; what only its masked image modelling needs is left out.
TOWER = Naming(
    "eva_clip_tower",
    [
        *_tower(""),
        *_lines("blocks.{}.", f"{_BLOCK}.", _ORIGINAL_NAMES),
        *TABLES,
        *(drop(name) for name in ("mask_token", "lm_head.*")),
    ],
)


def _hub_blocks(theirs: str, ours: str) -> list[Rule]:
    pairs = [
        ("self_attn.out_proj.*", "attention.out.*"),
        ("layer_norm1.*", "norm_1.*"),
        ("layer_norm2.*", "norm_2.*"),
        ("mlp.fc1.*", "mlp.fc1.*"),
        ("mlp.fc2.*", "mlp.fc2.*"),
    ]
    packed = pack([f"{theirs}.{{}}.self_attn.{p}_proj.weight" for p in "qkv"], f"{ours}.{{}}.attention.qkv.weight")
    return [*_lines(f"{theirs}.{{}}.", f"{ours}.{{}}.", pairs), packed]


_HUB_TEXT = "text_model.encoder.layers.{}.self_attn"
_HUB = [
    reshape("vision_model.embeddings.class_embedding", "image.prefix.weight", shape=(1, -1), their_shape=(-1,)),
    rename("vision_model.embeddings.position_embedding.weight", "image.positions.weight"),
    rename("vision_model.embeddings.patch_embedding.*", "image.patches.*"),
    *_hub_blocks("vision_model.encoder.layers", "image.blocks.layers"),
    rename("vision_model.encoder.layers.{}.self_attn.q_proj.bias", f"{_BLOCK}.attention.qkv.q_bias"),
    rename("vision_model.encoder.layers.{}.self_attn.v_proj.bias", f"{_BLOCK}.attention.qkv.v_bias"),
    rename("vision_model.post_layernorm.*", "image.pool.norm.*"),
    rename("visual_projection.*", "image_projection.*"),
    rename("text_model.embeddings.token_embedding.weight", "text.token_embedding.weight"),
    rename("text_model.embeddings.position_embedding.weight", "text.positions"),
    *_hub_blocks("text_model.encoder.layers", "text.blocks.layers"),
    pack([f"{_HUB_TEXT}.{p}_proj.bias" for p in "qkv"], "text.blocks.layers.{}.attention.qkv.bias"),
    rename("text_model.final_layer_norm.*", "text.norm.*"),
    rename("text_projection.weight", "text_projection.weight"),
    drop("vision_model.embeddings.position_ids"),  # 0, 1, 2, ...: files written before transformers 4.31
    drop("text_model.embeddings.position_ids"),
]
#: `EvaCLIPModel` of 8B, 8B-448 and 18B: the temperature is a constant of its class.
HUB = Naming("hf_eva_clip", [*_HUB, filled(_SCALE, math.log(100.0))])
#: The older port of E-plus, with a temperature and biases.
HUB_SCALED = Naming("hf_eva_clip_scaled", [*_HUB, rename("logit_scale", _SCALE)])

_TIMM_NAMES = [
    ("attn.norm.*", "attention.inner_norm.*"),
    ("mlp.fc1_g.*", "mlp.gate.*"),
    ("mlp.fc1_x.*", "mlp.up.*"),
    ("mlp.norm.*", "mlp.inner_norm.*"),
]
_TRUNK = "visual.trunk.blocks.{}."
_TIMM = [
    *_tower("visual.trunk."),
    *_lines(_TRUNK, f"{_BLOCK}.", _TIMM_NAMES),
    *TABLES,
    *_text("text."),
    rename("logit_scale", _SCALE),
]
#: open_clip's models with a plain trunk of timm (EVA01-g-14, EVA02-E-14).
OPEN_CLIP_PACKED = Naming(
    "open_clip_eva",
    [
        *_TIMM,
        rename(f"{_TRUNK}mlp.fc2.*", f"{_BLOCK}.mlp.fc2.*"),
        rename(f"{_TRUNK}attn.q_bias", f"{_BLOCK}.attention.qkv.q_bias"),
        rename(f"{_TRUNK}attn.v_bias", f"{_BLOCK}.attention.qkv.v_bias"),
    ],
)
#: open_clip's models with separate queries, keys and values and SwiGLU (EVA02-B-16, EVA02-L-14).
OPEN_CLIP_SEPARATE = Naming(
    "open_clip_eva02",
    [
        *_TIMM,
        rename(f"{_TRUNK}mlp.fc2.*", f"{_BLOCK}.mlp.down.*"),
        rename(f"{_TRUNK}attn.q_proj.bias", f"{_BLOCK}.attention.qkv.q_bias"),
        rename(f"{_TRUNK}attn.v_proj.bias", f"{_BLOCK}.attention.qkv.v_bias"),
    ],
)
ALL = (ORIGINAL, ROOT_TEXT, TEXT_SCALE, HUB, HUB_SCALED, OPEN_CLIP_PACKED, OPEN_CLIP_SEPARATE)
