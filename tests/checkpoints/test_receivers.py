"""Models with borrowed backbones come back too: their tables are in no file and cannot be left on meta."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.checkpoints.load import unsaved
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.zoo import build_model, declaration, from_pretrained

SIGLIP = ["width=32", "image_size=32", "options.intermediate_size=32", "options.num_hidden_layers=1"]


@pytest.mark.parametrize(
    ("encoder", "overrides", "tables"),
    [("transformers_siglip", [*SIGLIP, "options.num_attention_heads=2"], True), ("open_clip_vit", [], False)],
)
def test_saved_models_come_back_whatever_their_tower(tmp_path, encoder, overrides, tables):
    overrides = [f"encoder@model.image={encoder}", *(f"model.image.{override}" for override in overrides)]
    config = {**declaration("clip_tiny", overrides), "processor": None}
    model = build_model(config)
    assert bool(unsaved(model)) == tables
    save_model(model, tmp_path / "saved")
    again = from_pretrained(tmp_path / "saved")
    assert not any(tensor.is_meta for tensor in (*again.parameters(), *again.buffers()))
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
