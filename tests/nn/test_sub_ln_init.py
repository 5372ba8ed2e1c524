"""The first weights of EVA-02's masked image modelling."""

from __future__ import annotations

import math

import pytest
import torch

from multimodal_zoo.registry import build


@pytest.mark.parametrize("mlp", ["swiglu", "mlp"])
def test_deviations_are_xaviers_times_the_sub_ln_gain(mlp: str) -> None:
    width, hidden, depth = 192, 512, 6
    feed_forward = {"type": mlp, "width": width, "hidden": hidden}
    feed_forward |= {"bias": True} if mlp == "swiglu" else {"activation": "gelu"}
    stack = build(
        {
            "type": "transformer",
            "depth": depth,
            "init": {"type": "sub_ln_init"},
            "block": {
                "type": "pre_norm_block",
                "norm": {"type": "layer_norm", "width": width, "eps": 1e-6},
                "attention": {
                    "type": "self_attention",
                    "width": width,
                    "qkv": {"type": "separate_qkv_keyless", "width": width, "heads": 3, "head_dim": 64},
                },
                "mlp": feed_forward,
            },
        }
    )
    gain = math.sqrt(math.log(2 * depth))
    for layer in stack.layers:
        qkv = layer.attention.qkv
        square, wide = math.sqrt(1 / width), math.sqrt(2 / (width + hidden))
        expected = {qkv.query: square, qkv.key: square, qkv.value: gain * square, layer.attention.out: gain * square}
        expected |= {part: gain * wide for part in layer.mlp.children() if isinstance(part, torch.nn.Linear)}
        assert len(expected) == 4 + (3 if mlp == "swiglu" else 2)
        for part, deviation in expected.items():
            assert part.weight.std().item() == pytest.approx(deviation, rel=0.03)
            assert part.bias is None or not bool(part.bias.any())
