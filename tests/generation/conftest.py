"""A tiny decoder with grouped queries, over a tiny vocabulary of texts and pictures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.registry import build
from multimodal_zoo.tokenizers.emu3_ids import numbered_ids

sys.path.insert(0, str(Path(__file__).parents[1] / "decoders"))  # those of Emu


def build_model(max_positions: int = 80) -> Emu3:
    """An Emu3 of 12 text tokens and 20 codes, in evaluation mode, whose predictions are far from uniform."""
    ids = numbered_ids(12, 20)
    norm = {"type": "rms_norm", "width": 16, "eps": 1e-5}
    qkv = {"type": "separate_qkv", "width": 16, "heads": 4, "head_dim": 4, "kv_heads": 2, "biased": []}
    node = {
        "type": "causal_decoder",
        "width": 16,
        "vocab_size": ids.visual.stop,
        "max_positions": max_positions,
        "pad_id": ids.pad,
        "embedding_dropout": 0.1,
        "rotary": {"type": "rotary_1d", "head_dim": 4, "base": 1e4},
        "norm": norm,
        "std": 1.0,
        "blocks": {
            "type": "transformer",
            "depth": 2,
            "block": {
                "type": "pre_norm_block",
                "norm": norm,
                "attention": {"type": "self_attention", "width": 16, "qkv": qkv, "output_bias": False, "dropout": 0.1},
                "mlp": {"type": "swiglu", "width": 16, "hidden": 24, "bias": False},
            },
        },
    }
    return Emu3(build(node, path="decoder"), ids).eval()


@pytest.fixture
def model() -> Emu3:
    return build_model()
