"""Other libraries' towers in the image slot of a dual encoder, chosen by overrides alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from multimodal_zoo import zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.config import compose
from multimodal_zoo.encoders.adapters import OpenClipTower, TimmBackbone, TransformersVision
from multimodal_zoo.registry import build

TEXT = ("model.text.width=32", "model.text.blocks.depth=1", "model.text.blocks.block.attention.qkv.heads=4")
TEXT += ("model.text.blocks.block.attention.qkv.head_dim=8", "model.text.blocks.block.mlp.hidden=32")
TEXT += ("model.text.vocab_size=600",)
SLOTS = {
    "timm_vit": (["model.image.image_size=48"], (3, 3)),
    "timm_resnet": (["model.image.image_size=64"], (2, 2)),
    "timm_swin": (["model.image.image_size=64"], (2, 2)),
    "open_clip_vit": (["model.image.image_size=48"], (3, 3)),
    "transformers_dinov2": (["model.image.image_size=42", "model.image.options.num_hidden_layers=2"], (3, 3)),
    "transformers_siglip": (["model.image.image_size=48", "model.image.options.num_hidden_layers=2"], (3, 3)),
}


def in_slot(encoder: str, *overrides: str) -> nn.Module:
    chosen = ["+model=clip_vit_b32", f"encoder@model.image={encoder}", *TEXT, *overrides]
    node = compose(None, chosen).model
    return build({key: node[key] for key in node if key not in ("card", "processor")}, path="model")


@pytest.mark.parametrize("encoder", SLOTS)
def test_one_step_in_the_slot(encoder: str) -> None:
    overrides, grid = SLOTS[encoder]
    model = in_slot(encoder, *overrides)
    size = model.image.image_size
    images, ids = torch.randn(2, 3, size, size), torch.tensor([[598, 5, 599], [598, 599, 0]])
    features = model.image(images)
    assert features.grid == grid
    assert features.tokens.shape == (2, grid[0] * grid[1], model.image.width)
    assert features.pooled.shape == (2, model.image.width)
    out = model(images, ids)
    (out.image @ out.text.T).diagonal().sum().backward()
    assert model.image_projection.weight.grad.abs().sum() > 0
    assert sum(p.grad.abs().sum() for p in model.image.parameters() if p.grad is not None) > 0


def test_timm_tokens_are_timms() -> None:
    encoder = TimmBackbone("vit_tiny_patch16_224", width=192, image_size=32).eval()
    images = torch.randn(1, 3, 32, 32)
    assert_close(encoder(images).tokens, encoder.model.forward_features(images)[:, 1:])
    assert_close(encoder(images).pooled, encoder.model(images))
    network = TimmBackbone("resnet18", width=512, image_size=64).eval()
    large = torch.randn(1, 3, 64, 96)
    assert_close(network(large).pooled, network.model(large))
    assert network(large).grid == (2, 3)


@pytest.mark.parametrize(("size", "grid"), [((16, 16), (2, 2)), ((16, 40), (2, 5)), ((24, 24), (3, 3))])
def test_registers_are_no_patches(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """A class token, four registers and 2 x 2 patches are nine tokens, which are no grid of 3 x 3."""
    options = {"patch_size": 8, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = TransformersVision(
        "dinov2_with_registers", width=32, image_size=16, options=options | {"num_register_tokens": 4}
    ).eval()
    images = torch.randn(2, 3, *size)
    found = encoder(images)
    assert found.grid == grid
    whole = encoder.model(pixel_values=images, interpolate_pos_encoding=True) if size != (16, 16) else None
    expected = (encoder.model(pixel_values=images) if whole is None else whole).last_hidden_state[:, 5:]
    assert_close(found.tokens, expected)


def test_timm_weights_from_a_local_file(tmp_path: Path) -> None:
    source = TimmBackbone("vit_tiny_patch16_224", width=192, image_size=32).eval()
    torch.save(source.model.state_dict(), tmp_path / "weights.pth")
    loaded = TimmBackbone("vit_tiny_patch16_224", 192, 32, pretrained_file=str(tmp_path / "weights.pth")).eval()
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(loaded(images).pooled, source(images).pooled)


def test_transformers_weights_from_a_local_folder(tmp_path: Path) -> None:
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 14}
    source = TransformersVision("dinov2", width=32, image_size=28, options=options).eval()
    source.model.save_pretrained(tmp_path)
    loaded = TransformersVision("dinov2", width=32, image_size=28, pretrained_folder=str(tmp_path)).eval()
    images = torch.randn(1, 3, 28, 28)
    assert torch.equal(loaded(images).pooled, source(images).pooled)


def saved_without_its_source(node: dict, source: Path, folder: Path) -> None:
    """Build, save, lose the initial weights, read back: the same features."""
    model = zoo.build_model(node)
    images = torch.randn(1, 3, node["image"]["image_size"], node["image"]["image_size"])
    expected = model.eval().encode_image(images)
    save_model(model, folder)
    shutil.rmtree(source) if source.is_dir() else source.unlink()
    again = zoo.from_pretrained(folder).eval()
    assert_close(again.encode_image(images), expected)
    assert str(source) not in (folder / "config.yaml").read_text()


@pytest.mark.parametrize("encoder", ["timm_vit", "open_clip_vit"])
def test_a_saved_model_does_not_need_its_initial_file(encoder: str, tmp_path: Path) -> None:
    overrides, file = [f"encoder@model.image={encoder}", *TEXT, *SLOTS[encoder][0]], tmp_path / "weights.pth"
    node = zoo.declaration("clip_vit_b32", overrides)
    weights = build(node["image"], path="image").model.state_dict()
    if encoder == "open_clip_vit":
        import open_clip

        weights = open_clip.create_model(node["image"]["name"], force_image_size=48).state_dict()
    torch.save(weights, file)
    saved_without_its_source(
        zoo.declaration("clip_vit_b32", [*overrides, f"model.image.pretrained_file={file}"]), file, tmp_path / "saved"
    )


def test_a_saved_model_keeps_the_architecture_of_its_initial_folder(tmp_path: Path) -> None:
    options = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 7}
    TransformersVision("dinov2", width=32, image_size=28, options=options).model.save_pretrained(tmp_path / "source")
    node = zoo.declaration("clip_vit_b32", ["encoder@model.image=transformers_dinov2", *TEXT])
    folder = str(tmp_path / "source")
    node["image"] |= {"width": 32, "image_size": 28, "options": {}, "pretrained_folder": folder}
    node["image_projection"]["width"] = 32
    saved_without_its_source(node, tmp_path / "source", tmp_path / "saved")


def test_a_folder_of_another_family_is_refused_and_its_code_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is asked agrees
    config = {"model_type": "mine", "hidden_size": 32, "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise RuntimeError('ran the code of a folder')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        TransformersVision("mine", width=32, image_size=28, pretrained_folder=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match=r"image\.family is 'dinov2', but .* holds a 'vit'"):
        TransformersVision("dinov2", width=32, image_size=28, pretrained_folder=str(tmp_path))


@pytest.mark.parametrize("encoder", ["timm_vit", "open_clip_vit", "transformers_dinov2"])
def test_a_wrong_width_says_the_right_one(encoder: str) -> None:
    fix = ["model.image.options.hidden_size=384"] if encoder == "transformers_dinov2" else []
    with pytest.raises(ValueError, match=r"image.width is 100, but .* has width \d+; set image.width="):
        in_slot(encoder, "model.image.width=100", *fix)


def test_names_that_do_not_exist_are_refused() -> None:
    with pytest.raises(KeyError, match=r"timm has no model named 'vit_tinny_patch16'"):
        TimmBackbone("vit_tinny_patch16", 192, 32)
    with pytest.raises(KeyError, match=r"open_clip has no model named 'ViT-Q-16'"):
        OpenClipTower("ViT-Q-16", 384, 32)
    with pytest.raises(ValueError, match=r"timm_backbone"):
        OpenClipTower("RN50", 1024, 32)
    with pytest.raises(ValueError, match="widens the features"):
        TimmBackbone("mobilenetv3_small_050", 288, 32)
