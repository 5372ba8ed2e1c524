"""CLIP's published namings against the publishers' own classes: names and shapes at full size, numbers when tiny."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from multimodal_zoo.checkpoints.errors import CheckpointMismatch, UnknownCheckpoint
from multimodal_zoo.checkpoints.guess import guess_variant, variant_on_meta
from multimodal_zoo.checkpoints.load import account, load_into
from multimodal_zoo.checkpoints.tables import NAMINGS, clip, clip_config, detect_naming, find_naming
from multimodal_zoo.registry import build

FULL = {
    "clip_vit_b32": "ViT-B-32",
    "clip_vit_b16": "ViT-B-16",
    "clip_vit_l14": "ViT-L-14",
    "clip_vit_l14_336": "ViT-L-14-336",
}
HF_SIZES = {
    "clip_vit_b32": (512, {"patch_size": 32}, {}),
    "clip_vit_b16": (512, {"patch_size": 16}, {}),
    "clip_vit_l14": (
        768,
        {"patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
         "num_attention_heads": 16},
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    ),
    "clip_vit_l14_336": (
        768,
        {"patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
         "num_attention_heads": 16, "image_size": 336},
        {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    ),
}  # fmt: skip
TINY_OPEN_CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 12, "vocab_size": 50, "width": 48, "heads": 3, "layers": 3},
}


def open_clip_model(config, custom: bool = False) -> nn.Module:
    import open_clip

    kind = open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP
    return kind(**{key: value for key, value in config.items() if key != "custom_text"})


def hf_config(variant: str):
    from transformers import CLIPConfig

    embed_dim, vision, text = HF_SIZES[variant]
    return CLIPConfig(projection_dim=embed_dim, vision_config=vision, text_config=text)


def tiny_hf(hidden_act: str):
    from transformers import CLIPConfig, CLIPModel

    common = {"num_attention_heads": 2, "hidden_act": hidden_act}
    return CLIPModel(
        CLIPConfig(
            projection_dim=24,
            vision_config={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "image_size": 32,
                           "patch_size": 8, **common},
            text_config={"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 50,
                         "max_position_embeddings": 12, "eos_token_id": 49, "bos_token_id": 48, **common},
        )
    ).eval()  # fmt: skip


def scramble(model: nn.Module) -> nn.Module:
    """Every tensor random, so that no exchanged pair or lost bias goes unseen."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + 0.05)
    return model.eval()


def ours(sizes: clip_config.ClipSizes) -> nn.Module:
    node = sizes.node()
    return build({k: v for k, v in node.items() if k != "processor"}, path="model").eval()


@pytest.fixture
def inputs():
    ids = torch.randint(1, 40, (3, 12))
    ids[0, 5], ids[1, 11], ids[2, 7], ids[2, 9] = 49, 49, 49, 49
    return torch.randn(3, 3, 32, 32), ids


def normal(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features, dim=-1)


def compare(model: nn.Module, image: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, inputs) -> None:
    with torch.no_grad():
        found = model(*inputs)
    torch.testing.assert_close(found.image, normal(image), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.text, normal(text), atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(found.logit_scale, scale.exp().clamp(max=100))


@pytest.mark.parametrize("variant", FULL)
def test_every_tensor_of_open_clip_has_its_place(variant):
    import open_clip

    with torch.device("meta"):
        theirs = open_clip_model({**open_clip.get_model_config(FULL[variant]), "quick_gelu": True}).state_dict()
    model = variant_on_meta(variant)
    extras = {name: torch.tensor(0) for name in clip.OPENAI_EXTRAS}
    assert detect_naming(theirs) is clip.OPENAI
    assert account(model, {**theirs, **extras}, clip.OPENAI).exact
    back = clip.OPENAI.save(model.state_dict())
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in theirs.items()}
    assert clip_config.sizes_from_state({**theirs, **extras}).variant == variant


@pytest.mark.parametrize("variant", FULL)
def test_every_tensor_of_transformers_has_its_place(variant):
    from transformers import CLIPModel

    with torch.device("meta"):
        theirs = CLIPModel(hf_config(variant)).state_dict()
    model = variant_on_meta(variant)
    old = {f"{tower}_model.embeddings.position_ids": torch.zeros(1, 50) for tower in ("vision", "text")}
    assert detect_naming(theirs) is clip.HF
    assert account(model, {**theirs, **old}, clip.HF).exact
    back = clip.HF.save(model.state_dict())
    assert {n: t.shape for n, t in back.items()} == {n: t.shape for n, t in theirs.items()}
    assert clip_config.sizes_from_hf(hf_config(variant).to_dict()).variant == variant
    assert clip_config.sizes_from_hf(hf_config(variant).to_diff_dict()).variant == variant
    assert guess_variant(theirs, clip.HF) == variant


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("custom", [True, False])
def test_open_clip_gives_the_same_numbers_both_ways(quick, custom, inputs):
    config = {**TINY_OPEN_CLIP, "quick_gelu": quick}
    theirs, naming = scramble(open_clip_model(config, custom)), clip.OPEN_CLIP_CUSTOM if custom else clip.OPENAI
    assert detect_naming(theirs.state_dict()) is naming
    model = ours(clip_config.sizes_from_open_clip({"model_cfg": {**config, "custom_text": custom}}))
    load_into(model, theirs.state_dict(), naming)
    with torch.no_grad():
        compare(model, theirs.encode_image(inputs[0]), theirs.encode_text(inputs[1]), theirs.logit_scale, inputs)
    scramble(model)
    theirs.load_state_dict(naming.save(model.state_dict()))
    with torch.no_grad():
        compare(model, theirs.encode_image(inputs[0]), theirs.encode_text(inputs[1]), theirs.logit_scale, inputs)


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu"])
def test_transformers_gives_the_same_numbers_both_ways(hidden_act, inputs):
    theirs = scramble(tiny_hf(hidden_act))
    model = ours(clip_config.sizes_from_hf(theirs.config.to_dict()))

    def check() -> None:
        with torch.no_grad():
            found = theirs(input_ids=inputs[1], pixel_values=inputs[0])
        compare(model, found.image_embeds, found.text_embeds, theirs.logit_scale.detach(), inputs)

    load_into(model, theirs.state_dict(), clip.HF)
    check()
    scramble(model)
    theirs.load_state_dict(clip.HF.save(model.state_dict()))
    check()


def test_namings_are_found_by_name():
    assert find_naming("hf_clip") is NAMINGS["hf_clip"]
    with pytest.raises(KeyError, match="closest: hf_clip"):
        find_naming("hf_clp")
    assert detect_naming(["blocks.0.weight", "logit_scale"]) is None


def test_a_wrong_model_is_told_with_the_right_one():
    with torch.device("meta"):
        state = clip.OPENAI.save(variant_on_meta("clip_vit_b16").state_dict())
    with pytest.raises(CheckpointMismatch, match=r"(?s)misshapen: 2.*image\.patches\.weight.*'clip_vit_b16'"):
        load_into(variant_on_meta("clip_vit_b32"), state, clip.OPENAI, assign=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "layers"),
        ({"vision_cfg": {"timm_model_name": "vit_x"}}, "timm_model_name='vit_x'"),
        ({"text_cfg": {"pool_type": "last"}}, "text_cfg.pool_type='last'"),
        ({"text_cfg": {}, "vision_cfg": {}, "multimodal_cfg": {"width": 1}}, "multimodal_cfg"),
    ],
)
def test_other_architectures_of_open_clip_are_refused(change, message):
    with pytest.raises(UnknownCheckpoint, match=message.replace("[", r"\[")):
        clip_config.sizes_from_open_clip({"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}, **change})


def test_sizes_that_no_variant_has_keep_everything():
    sizes = clip_config.sizes_from_open_clip(TINY_OPEN_CLIP)
    assert sizes.variant is None
    assert clip_config.sizes_of(sizes.node()) == sizes
    with pytest.raises(UnknownCheckpoint, match="open_clip_config"):
        clip_config.sizes_from_state({"visual.proj": torch.ones(1, 1)})
    with pytest.raises(UnknownCheckpoint, match="eos_token_id is 7"):
        clip_config.sizes_from_hf({"text_config": {"eos_token_id": 7}})
    with pytest.raises(UnknownCheckpoint, match="'relu6'"):
        clip_config.sizes_from_hf({"vision_config": {"hidden_act": "relu6"}})
