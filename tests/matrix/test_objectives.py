"""Every contrastive objective on every dual encoder: a step each, and the trained model read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from interchange_cells import node_of, objective_of, pairs, round_trip, step, views
from interchange_parts import HEAD_SIZES, IMAGE_ENCODERS, OBJECTIVES, TEXT_ENCODERS, Part
from interchange_slots import DUAL, TEXT, with_heads
from torch import nn

from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.zoo import build_model


def every_objective(model: nn.Module, inside: nn.Module) -> None:
    """A step of each; heads learn by the objectives that need them."""
    batch = views(model)
    for name, heads in OBJECTIVES.items():
        model.zero_grad(set_to_none=True)
        given: Any = batch
        if name in ("contrastive", "video_contrastive"):
            images = batch.images["plain"]
            frames = torch.stack([images, batch.images["first"]], 1)
            given = ImageTextBatch(images if name == "contrastive" else frames, batch.texts["plain"], batch.keys)
        step(model, objective_of(name), given, inside)
        for head in HEAD_SIZES:
            learnt = any(weight.grad is not None for weight in model.heads[head].parameters())
            assert learnt == (head in heads), (name, head)


@pytest.mark.parametrize("part", IMAGE_ENCODERS, ids=[part.title for part in IMAGE_ENCODERS])
def test_image_encoders(part: Part, places: dict[str, Path], tmp_path: Path) -> None:
    model = build_model(node_of(with_heads(DUAL, part), part, places))
    every_objective(model, model.image)
    batch = pairs(model)
    round_trip(model, tmp_path / "run", lambda one: one.encode_image(batch.images))


@pytest.mark.parametrize("part", TEXT_ENCODERS, ids=[part.title for part in TEXT_ENCODERS])
def test_text_encoders(part: Part, tmp_path: Path) -> None:
    model = build_model(node_of(with_heads(TEXT, part), part, {}))
    every_objective(model, model.text)
    ids = views(model).texts["plain"]
    round_trip(model, tmp_path / "run", lambda one: one.encode_text(ids))
