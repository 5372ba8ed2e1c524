"""Image encoders of other models in Emu: what pools their tokens is left out."""

from __future__ import annotations

import torch

from multimodal_zoo.checkpoints.store import load_part, save_model
from multimodal_zoo.zoo import create


def test_a_tower_fills_an_encoder_whose_tokens_alone_are_read(tmp_path):
    tower, model = create("eva_clip_tiny", seed=1), create("emu_tiny", seed=2)
    save_model(tower, tmp_path / "clip")
    result = load_part(model, "image", tmp_path / "clip")
    expected = tower.image.state_dict()
    found = model.image_encoder.state_dict()
    assert len(found) == len(result.matched)
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert {name for name in expected if name not in found} == {"pool.norm.weight", "pool.norm.bias"}
    assert "image.pool.norm.weight" in result.left_out
    assert "text.norm.weight" in result.left_out


def test_a_published_tower_fills_it_too(tmp_path):
    tower, model = create("eva_clip_tiny", seed=1), create("emu_tiny", seed=2)
    theirs = {
        "cls_token": tower.image.prefix.weight[None], "pos_embed": tower.image.positions.weight[None],
        "norm.weight": tower.image.pool.norm.weight, "norm.bias": tower.image.pool.norm.bias,
    }  # fmt: skip
    from multimodal_zoo.checkpoints.tables.eva_clip import TOWER

    whole = {f"image.{name}": value for name, value in tower.image.state_dict().items()}
    torch.save({**TOWER.save(whole), **theirs}, tmp_path / "tower.pt")
    load_part(model, "image", tmp_path / "tower.pt")
    assert torch.equal(model.image_encoder.patches.weight, tower.image.patches.weight)
