from __future__ import annotations

import pytest
import torch
from torch import nn

from multimodal_zoo.analysis.flops import forward_flops, full_image_flops, full_text_flops, image_flops, text_flops
from multimodal_zoo.checkpoints.guess import variant_on_meta

#: GFLOP of image and text, forward, two per multiply-add, from open_clip's published profile table.
PUBLISHED = {"clip_vit_b32": (8.82, 5.96), "clip_vit_b16": (35.13, 5.96)}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_published_figures(variant):
    model = variant_on_meta(variant)
    full = full_image_flops(model, 224, 224), full_text_flops(model, 77)
    assert [flops / 1e9 for flops in full] == pytest.approx(PUBLISHED[variant], rel=0.01)
    alone = image_flops(model, 224, 224), text_flops(model, 77)  # the last block skips tokens that nothing reads
    assert all(0.9 * f < a <= f for a, f in zip(alone, full, strict=True))


def test_a_product_counts_two_per_multiply_add():
    layer = nn.Linear(5, 7, device="meta")
    assert forward_flops(lambda: layer(torch.empty(3, 5, device="meta"))) == 2 * 3 * 5 * 7


def test_text_cost_follows_the_length():
    model = variant_on_meta("clip_tiny")
    assert text_flops(model, 8) < text_flops(model, 16) / 1.9
