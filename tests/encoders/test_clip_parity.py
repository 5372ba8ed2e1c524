"""Our CLIP against open_clip's and transformers' classes: the same weights, the same outputs and gradients."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.config import compose
from multimodal_zoo.registry import build

TINY = (
    "model.image.width=48",
    "model.image.image_size=32",
    "model.image.patches.patch_size=8",
    "model.image.blocks.depth=3",
    "model.image.blocks.block.attention.qkv.heads=4",
    "model.image.blocks.block.attention.qkv.head_dim=12",
    "model.image.blocks.block.mlp.hidden=192",
    "model.text.width=32",
    "model.text.vocab_size=99",
    "model.text.context_length=12",
    "model.text.blocks.depth=2",
    "model.text.blocks.block.attention.qkv.heads=4",
    "model.text.blocks.block.attention.qkv.head_dim=8",
    "model.text.blocks.block.mlp.hidden=128",
    "model.embed_dim=24",
)
OPEN_CLIP = (
    (r"^visual\.class_embedding$", "image.prefix.weight"),
    (r"^visual\.positional_embedding$", "image.positions.weight"),
    (r"^visual\.conv1\.", "image.patches."),
    (r"^visual\.ln_pre\.", "image.norm_in."),
    (r"^visual\.ln_post\.", "image.pool.norm."),
    (r"^visual\.proj$", "image_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "image.blocks.layers."),
    (r"^transformer\.resblocks\.", "text.blocks.layers."),
    (r"^token_embedding\.", "text.token_embedding."),
    (r"^positional_embedding$", "text.positions"),
    (r"^ln_final\.", "text.norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"^logit_scale$", "logit_scale.weight"),
    (r"\.ln_([12])\.", r".norm_\1."),
    (r"\.attn\.in_proj_", ".attention.qkv."),
    (r"\.attn\.out_proj\.", ".attention.out."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.c_proj\.", ".fc2."),
)


def tiny(*overrides: str) -> nn.Module:
    node = compose(None, ["+model=clip_vit_b32", *TINY, *overrides]).model
    return build({key: node[key] for key in node if key not in ("card", "processor")}, path="model")


def ours_from(state: dict[str, Tensor]) -> dict[str, Tensor]:
    named = {}
    for key, value in state.items():
        for pattern, name in OPEN_CLIP:
            key = re.sub(pattern, name, key)
        if key == "image.prefix.weight":
            value = value[None]
        named[key] = value.T if key.endswith("_projection.weight") else value
    return named


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    ids = torch.tensor([[97, 5, 6, 98, 0, 0], [97, 98, 0, 0, 0, 0], [97, 1, 2, 3, 4, 98], [97, 0, 0, 98, 98, 50]])
    return torch.randn(4, 3, 32, 32, dtype=dtype), ids


@pytest.fixture
def peer() -> Any:
    from open_clip.model import CLIP

    vision = {"image_size": 32, "layers": 3, "width": 48, "head_width": 12, "patch_size": 8}
    text = {"context_length": 12, "vocab_size": 99, "width": 32, "heads": 4, "layers": 2}
    return CLIP(24, vision, text, quick_gelu=True)


def test_outputs_and_gradients_of_open_clip(peer: Any) -> None:
    model = tiny()
    model.load_state_dict(ours_from(peer.state_dict()))
    images, ids = inputs()
    full = nn.functional.pad(ids, (0, 6))  # open_clip needs the whole context
    theirs = peer.encode_image(images, normalize=True), peer.encode_text(full, normalize=True)
    ours = model(images, ids)
    assert_close(ours.image, theirs[0], atol=2e-5, rtol=1e-4)
    assert_close(ours.text, theirs[1], atol=2e-5, rtol=1e-4)
    assert_close(ours.logit_scale, peer.logit_scale.exp())

    weights = torch.randn(4, 4)
    (theirs[0] @ theirs[1].T * peer.logit_scale.exp() * weights).sum().backward()
    (ours.image @ ours.text.T * ours.logit_scale * weights).sum().backward()
    expected = ours_from({name: p.grad for name, p in peer.named_parameters()})
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, expected[name], atol=2e-5, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_outputs_of_transformers() -> None:
    from transformers import CLIPConfig, CLIPModel

    vision = {"hidden_size": 48, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CLIPConfig(
        vision_config={**vision, "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu"},
        text_config={
            **text,
            "vocab_size": 99,
            "max_position_embeddings": 12,
            "eos_token_id": 98,
            "hidden_act": "quick_gelu",
        },
        projection_dim=24,
    )
    peer, model = CLIPModel(config).eval(), tiny()
    state = {}
    for side, ours in (("vision", "image"), ("text", "text")):
        part = getattr(peer, f"{side}_model").state_dict()
        for i in range(model.get_submodule(f"{ours}.blocks").depth):
            old, new = f"encoder.layers.{i}.", f"{ours}.blocks.layers.{i}."
            for leaf in ("weight", "bias"):
                rows = [part[f"{old}self_attn.{n}_proj.{leaf}"] for n in "qkv"]
                state[f"{new}attention.qkv.{leaf}"] = torch.cat(rows)
                for theirs, mine in (
                    ("self_attn.out_proj", "attention.out"),
                    ("layer_norm1", "norm_1"),
                    ("layer_norm2", "norm_2"),
                    ("mlp.fc1", "mlp.fc1"),
                    ("mlp.fc2", "mlp.fc2"),
                ):
                    state[f"{new}{mine}.{leaf}"] = part[f"{old}{theirs}.{leaf}"]
    vision_state, text_state = peer.vision_model.state_dict(), peer.text_model.state_dict()
    state |= {
        "image.prefix.weight": vision_state["embeddings.class_embedding"][None],
        "image.positions.weight": vision_state["embeddings.position_embedding.weight"],
        "image.patches.weight": vision_state["embeddings.patch_embedding.weight"],
        "text.token_embedding.weight": text_state["embeddings.token_embedding.weight"],
        "text.positions": text_state["embeddings.position_embedding.weight"],
        "image_projection.weight": peer.visual_projection.weight,
        "text_projection.weight": peer.text_projection.weight,
        "logit_scale.weight": peer.logit_scale,
    }
    for leaf in ("weight", "bias"):
        state[f"image.norm_in.{leaf}"] = vision_state[f"pre_layrnorm.{leaf}"]
        state[f"image.pool.norm.{leaf}"] = vision_state[f"post_layernorm.{leaf}"]
        state[f"text.norm.{leaf}"] = text_state[f"final_layer_norm.{leaf}"]
    model.load_state_dict(state)
    images, ids = inputs()
    found, expected = model(images, ids), peer(pixel_values=images, input_ids=ids)
    assert_close(found.image, expected.image_embeds, atol=2e-5, rtol=1e-4)
    assert_close(found.text, expected.text_embeds, atol=2e-5, rtol=1e-4)


def test_math_kernel_gives_the_same_model() -> None:
    kernel = (f"model.{side}.blocks.block.attention.kernel=math" for side in ("image", "text"))
    model, plain = tiny().double(), tiny(*kernel).double()
    plain.load_state_dict(model.state_dict())
    images, ids = inputs(torch.float64)
    gradients = []
    for m in (model, plain):
        out = m(images, ids)
        loss = (out.image @ out.text.T * out.logit_scale).pow(2).sum()
        gradients.append(torch.autograd.grad(loss, list(m.parameters())))
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["clip_vit_b32", "clip_vit_b16", "clip_vit_l14"])
def test_published_sizes(name: str) -> None:
    node = compose(None, [f"+model={name}"]).model
    with torch.device("meta"):
        model = build({key: node[key] for key in node if key not in ("card", "processor")}, path="model")
        size = node.image.image_size
        out = model(torch.empty(2, 3, size, size), torch.empty(2, 77, dtype=torch.long))
    assert sum(p.numel() for p in model.parameters()) == node.card.parameters
    assert out.image.shape == out.text.shape == (2, node.embed_dim)
