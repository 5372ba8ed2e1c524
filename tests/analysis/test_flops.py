from __future__ import annotations

import pytest
import torch
from torch import nn

from multimodal_zoo.analysis.flops import (
    forward_flops,
    full_image_flops,
    full_text_flops,
    image_flops,
    step_flops,
    text_flops,
)
from multimodal_zoo.checkpoints.guess import variant_on_meta

#: GFLOP of image and text, forward, two per multiply-add, from open_clip's published profile table.
PUBLISHED = {"clip_vit_b32": (8.82, 5.96), "clip_vit_b16": (35.13, 5.96)}
#: The same of EVA-CLIP's image towers.
PUBLISHED_IMAGES = {
    "eva_clip_b16": 35.1,
    "eva_clip_l14": 162.0,
    "eva_clip_l14_336": 381.9,
    "eva_clip_g14": 534.1,
    "eva_clip_e14": 2264.3,
}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_figures(variant):
    model = variant_on_meta(variant)
    full = full_image_flops(model, 224, 224), full_text_flops(model, 77)
    assert [flops / 1e9 for flops in full] == pytest.approx(PUBLISHED[variant], rel=0.01)
    alone = image_flops(model, 224, 224), text_flops(model, 77)  # the last block skips tokens that nothing reads
    assert all(0.9 * f < a <= f for a, f in zip(alone, full, strict=True))


@pytest.mark.parametrize("variant", PUBLISHED_IMAGES)
def test_published_figures_of_eva_clip(variant):
    model = variant_on_meta(variant)
    side = model.image.image_size
    assert full_image_flops(model, side, side) / 1e9 == pytest.approx(PUBLISHED_IMAGES[variant], rel=0.01)


def test_a_step_costs_three_forward_passes():
    model = variant_on_meta("eva_clip_tiny")
    whole = full_image_flops(model, 48, 48) + full_text_flops(model, 16)
    step, recomputed = step_flops(model, 48, 16), step_flops(model, 48, 16, "block")
    assert 2.4 * whole < step < 3 * whole  # the last block skips tokens, the first layer needs no input gradient
    assert 3.1 * whole < recomputed < 4 * whole
    model.image.requires_grad_(False)
    assert step_flops(model, 48, 16) < 0.5 * step
    model.image.requires_grad_(True).patch_dropout.rate = 0.5
    assert 0.4 * step < step_flops(model, 48, 16) < 0.65 * step


def test_a_product_counts_two_per_multiply_add():
    layer = nn.Linear(5, 7, device="meta")
    assert forward_flops(lambda: layer(torch.empty(3, 5, device="meta"))) == 2 * 3 * 5 * 7


def test_text_cost_follows_the_length():
    model = variant_on_meta("clip_tiny")
    assert text_flops(model, 8) < text_flops(model, 16) / 1.9
