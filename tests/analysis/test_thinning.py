"""One block of many alike gives the figures of all, exactly."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.analysis import peak, thinning
from multimodal_zoo.analysis.flops import full_image_flops, image_flops, step_flops, text_flops
from multimodal_zoo.analysis.peak import step_peak
from multimodal_zoo.analysis.thinning import inner_blocks, thinned
from multimodal_zoo.zoo import build_model, declaration

DEPTHS = {"image": 5, "text": 5}
DEEP = [f"model.{tower}.blocks.depth={depth}" for tower, depth in DEPTHS.items()]


def deep(*words: str) -> torch.nn.Module:
    return build_model(declaration("eva_clip_tiny", [*DEEP, *words]), device="meta")


def inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty(batch, 3, 48, 48), torch.zeros(batch, 16, dtype=torch.long)


@pytest.mark.parametrize("checkpoint", ["none", "block"])
@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ([], (torch.float32, None)),
        (["model.image.blocks.drop_path=0.2"], (torch.float32, torch.bfloat16)),
        (["model.image.patch_dropout.rate=0.5", "model.text.width=512"], (torch.bfloat16, None)),
        (["model.text.blocks.depth=14"], (torch.float32, None)),  # the fullest moment is in the text tower
    ],
)
def test_peaks(words, precision, checkpoint, monkeypatch):
    model, (dtype, autocast) = deep(*words), precision
    found = step_peak(model, inputs, checkpoint=checkpoint, dtype=dtype, autocast=autocast)
    monkeypatch.setattr(peak, "inner_blocks", lambda model: {})
    assert found == step_peak(model, inputs, checkpoint=checkpoint, dtype=dtype, autocast=autocast)


@pytest.mark.parametrize("frozen", ["image", "text.blocks.layers.0", "image.blocks", "image.blocks.layers.3"])
def test_peaks_with_frozen_parts(frozen, monkeypatch):
    model = deep()
    model.get_submodule(frozen).requires_grad_(False)
    if frozen == "text.blocks.layers.0":  # nothing before the second block trains
        model.text.token_embedding.requires_grad_(False)
        for parameter in model.text.parameters(recurse=False):
            parameter.requires_grad_(False)
    found = step_peak(model, inputs)
    monkeypatch.setattr(peak, "inner_blocks", lambda model: {})
    assert found == step_peak(model, inputs)


def test_operations(monkeypatch):
    model = deep()
    measures = (
        lambda: image_flops(model, 48, 48),
        lambda: full_image_flops(model, 48, 48),
        lambda: text_flops(model, 16),
        lambda: step_flops(model, 48, 16, "block"),
    )
    found = [measure() for measure in measures]
    monkeypatch.setattr(thinning, "inner_blocks", lambda model: {})
    assert found == [measure() for measure in measures]


def test_only_blocks_that_are_alike_are_left_out():
    model = deep()
    assert inner_blocks(model) == {"image.blocks": 3, "text.blocks": 3}
    model.image.blocks.layers[2].requires_grad_(False)
    assert inner_blocks(model) == {"text.blocks": 3}
    thin = thinned(model, {"text.blocks": 1})
    assert len(thin.text.blocks.layers) == thin.text.blocks.depth == 3
    assert thin.text.blocks.layers[2].norm_1.weight is model.text.blocks.layers[4].norm_1.weight
    assert len(model.text.blocks.layers) == 5
