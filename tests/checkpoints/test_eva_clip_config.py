"""EVA-CLIP's nodes: published configurations give the declared variants, any fields the right parts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.eva_clip_config import hub_node, image_nodes, original_node, text_nodes
from multimodal_zoo.nn.norms import LayerNorm, RMSNorm
from multimodal_zoo.nn.positions import ResizablePositions
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model, create, declaration

KERNELS = {"xattn": True, "fusedLN": True}
EVA02 = {"rope": True, "pt_hw_seq_len": 16, "intp_freq": True, "naiveswiglu": True, "subln": True, "qkv_bias": True}
EVA18 = {"qkv_bias": False, "use_rms_norm": True, "xattn": True}


def config(embed_dim: int, vision: dict[str, Any], text: tuple[int, int, int]) -> dict[str, Any]:
    width, heads, layers = text
    vision = {"eva_model_name": "eva-clip-x", "drop_path_rate": 0, **KERNELS, **vision}
    words = {"context_length": 77, "vocab_size": 49408, "width": width, "heads": heads, "layers": layers, **KERNELS}
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": words}


def sizes(layers: int, width: int, head_width: int, ratio: float, patch: int = 14, image: int = 224) -> dict[str, Any]:
    named = {"layers": layers, "width": width, "head_width": head_width, "mlp_ratio": ratio}
    return {**named, "patch_size": patch, "image_size": image}


G, E, B8 = sizes(40, 1408, 88, 4.3637), sizes(64, 1792, 112, 8.571428571428571), sizes(32, 4096, 128, 5)
TEXT_B, TEXT_L, TEXT_H, TEXT_BIGG = (512, 8, 12), (768, 12, 12), (1024, 16, 24), (1280, 20, 32)
#: variant: original configuration; parameters in all, of the image side and of the text side.
PUBLISHED: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "eva_clip_g14": (
        config(1024, {**G, "drop_path_rate": 0.4}, TEXT_L),
        (1_136_435_841, 1_012_588_928, 123_846_912),
    ),
    "eva_clip_g14_plus": (config(1024, G, TEXT_H), (1_366_621_569, 1_012_588_928, 354_032_640)),
    "eva_clip_b16": (
        config(512, {**sizes(12, 768, 64, 2.6667, patch=16), **EVA02}, TEXT_B),
        (149_691_137, 86_263_040, 63_428_096),
    ),
    "eva_clip_l14": (
        config(768, {**sizes(24, 1024, 64, 2.6667), **EVA02}, TEXT_L),
        (427_755_457, 304_105_152, 123_650_304),
    ),
    "eva_clip_l14_336": (
        config(768, {**sizes(24, 1024, 64, 2.6667, image=336), **EVA02}, TEXT_L),
        (428_083_137, 304_432_832, 123_650_304),
    ),
    "eva_clip_e14": (
        config(1024, {**E, "postnorm": True}, TEXT_H),
        (4_704_589_569, 4_350_556_928, 354_032_640),
    ),
    "eva_clip_e14_plus": (
        config(1024, {**E, "postnorm": True}, TEXT_BIGG),
        (5_044_889_089, 4_350_556_928, 694_332_160),
    ),
    "eva_clip_8b": (config(1280, {**B8, **EVA18}, TEXT_BIGG), (8_220_748_545, 7_526_088_704, 694_659_840)),
    "eva_clip_8b_448": (
        config(1280, {**B8, **EVA18, "image_size": 448}, TEXT_BIGG),
        (8_223_894_273, 7_529_234_432, 694_659_840),
    ),
    "eva_clip_18b": (
        config(1536, {**sizes(48, 5120, 128, 5), **EVA18, "postnorm": True}, TEXT_BIGG),
        (18_325_482_241, 17_630_494_720, 694_987_520),
    ),
}
TINY_TEXT = {"context_length": 10, "vocab_size": 59, "width": 24, "heads": 2, "layers": 2}


def tiny(**vision: Any) -> dict[str, Any]:
    base = {"image_size": 28, "patch_size": 7, "width": 32, "layers": 2, "head_width": 8, "eva_model_name": "eva"}
    return {"embed_dim": 16, "vision_cfg": {**base, "drop_path_rate": 0.0, **vision}, "text_cfg": TINY_TEXT}


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize("variant", PUBLISHED)
def test_a_published_configuration_is_the_declared_variant(variant: str) -> None:
    original, counts = PUBLISHED[variant]
    node = original_node(original)
    assert node == declaration(variant)
    assert node["card"]["parameters"] == counts[0]
    model: Any = create(variant, device="meta")
    image, text = count(model.image, model.image_projection), count(model.text, model.text_projection)
    assert (count(model), image, text) == counts
    assert image_nodes(original) == (node["image"], node["image_projection"])
    assert text_nodes(original) == (node["text"], node["text_projection"])


def test_training_fields_do_not_make_another_variant() -> None:
    original, _ = PUBLISHED["eva_clip_b16"]
    changed = {**original, "vision_cfg": {**original["vision_cfg"], "patch_dropout": 0.5, "drop_path_rate": 0.1}}
    node = original_node(changed)
    assert node["card"]["name"] == "eva_clip_b16"
    assert node["image"]["patch_dropout"]["rate"] == 0.5
    assert node["image"]["blocks"]["drop_path"] == 0.1


def test_the_small_variant_runs_and_has_every_part_of_eva02() -> None:
    model: Any = create("eva_clip_tiny")
    assert count(model) == model.card["parameters"]
    with torch.no_grad():
        out = model(model.processor.images([torch.zeros(48, 48, 3, dtype=torch.uint8).numpy()]), torch.tensor([[1, 5]]))
    assert out.image.shape == out.text.shape == (1, 256)
    published = original_node(PUBLISHED["eva_clip_b16"][0])["image"]

    def types(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        return {key: types(value) for key, value in node.items() if isinstance(value, dict) or key == "type"}

    assert types(declaration("eva_clip_tiny")["image"]) == types(published)


FLAGS = ("qkv_bias", "postnorm", "rope", "naiveswiglu", "subln", "use_rms_norm", "global_average_pool", "scaled")


@pytest.mark.parametrize("chosen", list(itertools.product([False, True], repeat=len(FLAGS))))
def test_every_combination_of_fields_has_its_parts(chosen: tuple[bool, ...]) -> None:
    """Names and shapes as the original classes make them, derived here a second time from the fields."""
    flags = dict(zip(FLAGS, chosen, strict=True))
    vision = {**{k: v for k, v in flags.items() if k != "scaled"}, "layers": 1, "mlp_ratio": 2.6667}
    vision |= {"ls_init_value": 0.1} if flags["scaled"] else {}
    vision |= {"intp_freq": True, "pt_hw_seq_len": 3} if flags["rope"] else {}
    encoder, projection = image_nodes(tiny(**vision))
    with torch.device("meta"):
        tower, head = build(encoder), build(projection)
    names = {name.removeprefix("blocks.layers.0.") for name, _ in tower.named_parameters()}
    both = ["weight"] if flags["use_rms_norm"] else ["weight", "bias"]
    wanted = {"prefix.weight", "positions.weight", "patches.weight", "patches.bias"}
    wanted |= {f"{norm}.{k}" for norm in ("norm_1", "norm_2") for k in both}
    wanted |= {f"pool.{'mean_norm' if flags['global_average_pool'] else 'norm'}.{k}" for k in both}
    wanted |= {"attention.out.weight", "attention.out.bias"}
    wanted |= {"attention.qkv.q_bias", "attention.qkv.v_bias"} if flags["qkv_bias"] else set()
    if flags["subln"]:
        wanted |= {f"attention.qkv.{name}.weight" for name in ("query", "key", "value")}
        wanted |= {f"attention.inner_norm.{k}" for k in both}
        wanted |= {f"mlp.inner_norm.{k}" for k in (both if flags["naiveswiglu"] else ["weight", "bias"])}
    else:
        wanted |= {"attention.qkv.weight"}
    layers = ("gate", "up", "down") if flags["naiveswiglu"] else ("fc1", "fc2")
    wanted |= {f"mlp.{layer}.{k}" for layer in layers for k in ("weight", "bias")}
    wanted |= {"scale_1.weight", "scale_2.weight"} if flags["scaled"] else set()
    assert names == wanted
    assert (head.bias is not None) == flags["qkv_bias"]
    assert (tower.rotary is not None) == flags["rope"]
    assert isinstance(tower.positions, ResizablePositions)
    hidden = tower.blocks.layers[0].mlp.up if flags["naiveswiglu"] else tower.blocks.layers[0].mlp.fc1
    assert hidden.out_features == 85
    kinds = {type(m): m.eps for m in tower.modules() if isinstance(m, (LayerNorm, RMSNorm))}
    plain_inner = flags["subln"] and not flags["naiveswiglu"]
    if not plain_inner:
        assert kinds == {RMSNorm if flags["use_rms_norm"] else LayerNorm: 1e-6}
    else:
        inner = tower.blocks.layers[0].mlp.inner_norm
        assert (type(inner), inner.eps) == (LayerNorm, 1e-5)


def test_heads_and_widths_that_do_not_divide_are_as_published() -> None:
    encoder, _ = image_nodes(tiny(width=50, head_width=16))
    qkv = encoder["blocks"]["block"]["attention"]["qkv"]
    assert (qkv["heads"], qkv["head_dim"]) == (3, 16)
    encoder, _ = image_nodes(tiny(width=50, head_width=48))
    assert encoder["blocks"]["block"]["attention"]["qkv"]["head_dim"] == 50


def test_defaults_are_the_published_ones() -> None:
    node = original_node({"embed_dim": 512, "vision_cfg": {"eva_model_name": "x"}, "text_cfg": {}})
    image, block = node["image"], node["image"]["blocks"]["block"]
    assert (image["width"], image["blocks"]["depth"], block["mlp"]["hidden"]) == (768, 12, 3072)
    assert (image["image_size"], image["patches"]["patch_size"]) == (224, 16)
    assert block["attention"]["qkv"] == {"type": "packed_qkv_keyless", "width": 768, "heads": 12, "head_dim": 64}
    assert node["text"] == declaration("eva_clip_b16")["text"]


def test_layer_scale_of_zero_is_none_in_the_image_tower_and_one_in_the_text_tower() -> None:
    assert "layer_scale" not in image_nodes(tiny(ls_init_value=0.0))[0]["blocks"]["block"]
    scaled = {**tiny(), "text_cfg": {**TINY_TEXT, "ls_init_value": 0.0}}
    assert text_nodes(scaled)[0]["blocks"]["block"]["layer_scale"]["initial"] == 0.0


def test_rotary_positions_without_interpolation_need_their_grid() -> None:
    assert image_nodes(tiny(rope=True, pt_hw_seq_len=4))[0]["rotary"]["pretrained_side"] == 4
    with pytest.raises(UnknownCheckpoint, match=r"intp_freq.*side 16.*images of 28 make 4"):
        original_node(tiny(rope=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"eva_model_name": "x", "use_rel_pos_bias": True}}, "vision_cfg.use_rel_pos_bias=True"),
        ({"vision_cfg": {"timm_model_name": "vit_x"}}, "vision_cfg.timm_model_name='vit_x'"),
        ({"vision_cfg": {"eva_model_name": ""}}, "eva_model_name=''"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, r"vision_cfg.layers is \[3, 4, 6, 3\]"),
        ({"vision_cfg": {"head_width": 1024}}, "head_width 1024 exceeds width 768"),
        ({"text_cfg": {"hf_model_name": "roberta"}}, "text_cfg.hf_model_name='roberta'"),
        ({"text_cfg": {"attn_mask": False}}, "text_cfg.attn_mask=False"),
        ({"text_cfg": {"heads": 7}}, "width 512 is not a multiple of heads 7"),
        ({"multimodal_cfg": {"width": 1}}, "multimodal_cfg"),
        ({"embed_dim": None}, "embed_dim=None"),
        ({"vision_cfg": None}, "no section vision_cfg"),
    ],
)
def test_what_no_part_expresses_is_an_error(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=message):
        original_node({"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}, **change})


HUB = {
    "projection_dim": 20,
    "vision_config": {"hidden_size": 48, "intermediate_size": 240, "num_hidden_layers": 2, "num_attention_heads": 3,
                      "image_size": 28, "patch_size": 7, "layer_norm_eps": 1e-6, "q_bias": False, "k_bias": False,
                      "v_bias": False, "post_layernorm": False, "use_rms_norm": True},
    "text_config": {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2,
                    "num_attention_heads": 4, "max_position_embeddings": 12},
}  # fmt: skip


def test_the_hub_configuration_gives_the_same_node_as_the_original() -> None:
    vision = {"width": 48, "head_width": 16, "mlp_ratio": 5, "qkv_bias": False, "use_rms_norm": True}
    text = {"vocab_size": 97, "width": 32, "layers": 2, "heads": 4, "context_length": 12}
    assert hub_node(HUB) == original_node({**tiny(**vision), "embed_dim": 20, "text_cfg": text})
    for post_norm in (True, False):
        node = hub_node({**HUB, "vision_config": {**HUB["vision_config"], "post_layernorm": post_norm}})
        assert (node["image"]["blocks"]["block"]["type"] == "post_norm_block") == post_norm
    biased = {**HUB, "vision_config": {**HUB["vision_config"], "q_bias": True, "v_bias": True, "use_rms_norm": False}}
    assert hub_node(biased)["image"]["blocks"]["block"]["attention"]["qkv"]["type"] == "packed_qkv_keyless"
    assert hub_node(biased)["image_projection"]["bias"]
    assert not hub_node(biased, head_bias=False)["image_projection"]["bias"]


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("vision_config", {"k_bias": True}, "q_bias, k_bias, v_bias"),
        ("vision_config", {"hidden_act": "relu"}, "vision_config.hidden_act='relu'"),
        ("vision_config", {"num_channels": 1}, "vision_config.num_channels=1"),
        ("text_config", {"q_bias": False}, "text_config.q_bias=False"),
        ("text_config", {"eos_token_id": 7}, "eos_token_id is 7"),
    ],
)
def test_hub_fields_that_no_part_expresses_are_errors(section: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=message):
        hub_node({**HUB, section: {**HUB[section], **change}})


def test_sizes_that_no_variant_has_make_a_whole_model() -> None:
    model: Any = build_model(original_node(tiny(mlp_ratio=4.3637)))
    assert model.processor.texts("a").shape == (1, 3)
    assert model.card["system"] == "EVA-CLIP"


def test_the_first_weights_follow_the_published_rule() -> None:
    model: Any = build_model(original_node(tiny(width=256, head_width=64, naiveswiglu=True, subln=True)))
    layers = model.image.blocks.layers
    for number, layer in enumerate(layers, start=1):
        for part, wanted in (
            (layer.attention.qkv.query.weight, 0.02),
            (layer.mlp.gate.weight, 0.02),
            (layer.attention.out.weight, 0.02 / (2 * number) ** 0.5),
            (layer.mlp.down.weight, 0.02 / (2 * number) ** 0.5),
        ):
            assert part.std().item() == pytest.approx(wanted, rel=0.03)
        assert not layer.attention.qkv.q_bias.any()
        assert not layer.mlp.down.bias.any()
        assert bool((layer.norm_1.weight == 1).all())
    assert model.image.positions.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.image_projection.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not model.image_projection.bias.any()
    assert model.image.patches.weight.std().item() == pytest.approx((3 * 3 * 49) ** -0.5, rel=0.05)
    assert model.text_projection.weight.std().item() == pytest.approx(24**-0.5, rel=0.15)
