"""The parts express every published EVA-CLIP tower: outputs and inner activations against golden cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.encoders.pooling import ClassTokenPool, MeanPool
from multimodal_zoo.encoders.text_transformer import ClipTextTransformer
from multimodal_zoo.encoders.vision_transformer import VisionTransformer
from multimodal_zoo.nn.attention import SelfAttention
from multimodal_zoo.nn.mlp import Mlp, SwiGLU
from multimodal_zoo.nn.norms import LayerNorm, RMSNorm
from multimodal_zoo.nn.patches import PatchEmbedding
from multimodal_zoo.nn.positions import ClassToken, LearnedPositions
from multimodal_zoo.nn.projections import KeylessBiasProjection, PackedProjection, SeparateKeylessProjection
from multimodal_zoo.nn.regularize import LayerScale
from multimodal_zoo.nn.rotary import Rotary2d
from multimodal_zoo.nn.transformer import PostNormBlock, PreNormBlock, Transformer

CLOSE = {"atol": 1e-5, "rtol": 2e-5}
CASES = (
    "vision_layerscale_meanpool",
    "vision_plain_prenorm",
    "vision_postnorm",
    "vision_rms_postnorm",
    "vision_rms_prenorm",
    "vision_rope_interpolated",
    "vision_rope_subln_swiglu",
)
RENAMED = (
    (r"^visual\.cls_token$", "prefix.weight"),
    (r"^visual\.pos_embed$", "positions.weight"),
    (r"^visual\.patch_embed\.proj\.", "patches."),
    (r"^visual\.blocks\.", "blocks.layers."),
    (r"^visual\.norm\.", "pool.norm."),
    (r"^visual\.fc_norm\.", "pool.mean_norm."),
    (r"\.norm([12])\.", r".norm_\1."),
    (r"gamma_([12])$", r"scale_\1.weight"),
    (r"attn\.qkv\.", "attention.qkv."),
    (r"attn\.proj\.", "attention.out."),
    (r"attn\.inner_attn_ln", "attention.inner_norm"),
    (r"attn\.q_proj", "attention.qkv.query"),
    (r"attn\.k_proj", "attention.qkv.key"),
    (r"attn\.v_proj", "attention.qkv.value"),
    (r"mlp\.w1", "mlp.gate"),
    (r"mlp\.w2", "mlp.up"),
    (r"mlp\.w3", "mlp.down"),
    (r"mlp\.ffn_ln", "mlp.inner_norm"),
)


def tower(config: dict[str, Any]) -> VisionTransformer:
    get = config.get
    width, head_dim, norm_type = config["width"], config["head_width"], RMSNorm if get("use_rms_norm") else LayerNorm
    heads, hidden = width // head_dim, int(width * config["mlp_ratio"])

    def norm(size: int) -> nn.Module:
        return norm_type(size, 1e-6)

    qkv: nn.Module = PackedProjection(width, heads, head_dim, heads, bias=False)
    if get("qkv_bias", True):
        qkv = KeylessBiasProjection(width, heads, head_dim)
    if get("subln"):
        qkv = SeparateKeylessProjection(width, heads, head_dim)
    attention = SelfAttention(width, qkv, inner_norm=norm(width) if get("subln") else None)
    plain = Mlp(width, hidden, "gelu")
    mlp = SwiGLU(width, hidden, bias=True, inner_norm=norm(hidden)) if get("naiveswiglu") else plain
    kind = PostNormBlock if get("postnorm") else PreNormBlock
    block = kind(attention, mlp, norm(width), LayerScale(width, 0.1) if get("ls_init_value") else None)
    return VisionTransformer(
        width=width,
        image_size=config["image_size"],
        patches=PatchEmbedding(width, config["patch_size"], bias=True),
        blocks=Transformer(block, config["layers"]),
        pool=MeanPool(norm(width), first=0) if get("global_average_pool") else ClassTokenPool(norm(width)),
        prefix=ClassToken(width, std=0.02),
        positions=LearnedPositions(width, config["image_size"], config["patch_size"], prefix=1, std=0.02),
        rotary=Rotary2d(head_dim, config["pt_hw_seq_len"]) if get("rope") else None,
    )


def load(model: nn.Module, state: dict[str, Tensor]) -> None:
    named = {}
    for key, value in state.items():
        if not key.startswith("visual.head."):
            for pattern, name in RENAMED:
                key = re.sub(pattern, name, key)
            key = re.sub(r"attn\.([qv])_bias", r"attention.qkv.\1_bias", key)
            named[key] = value[0] if key in ("prefix.weight", "positions.weight") else value
    model.load_state_dict(named)


@pytest.mark.parametrize("name", CASES)
def test_a_tower_gives_the_published_numbers(name: str, golden: Callable[[str], Any]) -> None:
    case = golden(f"eva_clip/{name}")
    config, io = case.config["vision_cfg"], case.tensors
    model = tower(config).eval()
    load(model, case.state)
    features = model(io["image"])
    assert_close(features.pooled, io["pooled"], **CLOSE)
    assert_close(model.pooled(io["image"]), io["pooled"], **CLOSE)
    head = nn.functional.linear(features.pooled, case.state["visual.head.weight"], case.state.get("visual.head.bias"))
    assert_close(head, io["features"], **CLOSE)
    assert_close(model.patches(io["image"])[0], io["after_patch_embed"], **CLOSE)
    assert_close(model.intermediates(io["image"], [0])[0], io["after_block0"], **CLOSE)
    assert_close(model.stream(io["image"]), io["after_last_block"], **CLOSE)
    assert_close(features.tokens, io["after_last_block"][:, 1:], **CLOSE)
    if model.rotary is not None:
        rotation = model.rotary(features.grid, 0, io["image"].device)
        assert_close(rotation.cos, io["rope_cos"], **CLOSE)
        assert_close(rotation.sin, io["rope_sin"], **CLOSE)


class Keep(nn.Module):
    """Patch dropout that keeps given patches."""

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, tokens: Tensor, prefix: int) -> tuple[Tensor, Tensor]:
        index = (self.keep + prefix)[:, :, None].expand(-1, -1, tokens.shape[2])
        return torch.cat((tokens[:, :prefix], tokens.gather(1, index)), 1), self.keep


def test_patch_dropout_carries_its_rotary_positions(golden: Callable[[str], Any]) -> None:
    case = golden("eva_clip/vision_patch_dropout_rope")
    config, io = case.config["vision_cfg"], case.tensors
    model = tower(config)
    load(model, case.state)
    model.patch_dropout = Keep(io["patch_indices_keep"])
    head = case.state["visual.head.weight"], case.state["visual.head.bias"]
    found = nn.functional.linear(model(io["image"]).pooled, *head)
    assert_close(found, io["features_train"], **CLOSE)
    assert_close((found * io["loss_weights"]).sum(), io["loss"], atol=1e-4, rtol=1e-4)


def test_the_text_tower_gives_the_published_numbers(golden: Callable[[str], Any]) -> None:
    case = golden("eva_clip/text_tower")
    config, io = case.config["text_cfg"], case.tensors
    width, heads = config["width"], config["heads"]
    qkv = PackedProjection(width, heads, width // heads, heads, bias=True)
    block = PreNormBlock(SelfAttention(width, qkv), Mlp(width, 4 * width, "gelu"), LayerNorm(width, 1e-5))
    model = ClipTextTransformer(
        width,
        config["context_length"],
        config["vocab_size"],
        blocks=Transformer(block, config["layers"]),
        norm=LayerNorm(width, 1e-5),
    )
    renamed = (
        (r"^text\.", ""),
        (r"^positional_embedding", "positions"),
        (r"^transformer\.resblocks", "blocks.layers"),
        (r"ln_final", "norm"),
        (r"ln_([12])", r"norm_\1"),
        (r"attn\.in_proj_", "attention.qkv."),
        (r"attn\.out_proj", "attention.out"),
        (r"c_fc", "fc1"),
        (r"c_proj", "fc2"),
    )
    state = {}
    for key, value in case.state.items():
        for pattern, name in renamed:
            key = re.sub(pattern, name, key)
        state[key] = value
    projection = state.pop("text_projection")
    model.load_state_dict(state)
    features = model(io["ids"])
    assert_close(features.pooled @ projection, io["features"], **CLOSE)
    assert_close(model.pooled(io["ids"]) @ projection, io["features"], **CLOSE)
    assert_close(features.tokens, io["all_features"], **CLOSE)
