"""The plan of a decoder against closed forms, and against what a step really holds."""

from __future__ import annotations

import json

import pytest
import torch

from multimodal_zoo.analysis import Device, Setting, decoder_plan
from multimodal_zoo.analysis.peak import LiveBytes
from multimodal_zoo.cli import main
from multimodal_zoo.zoo import build_model, declaration

WIDTH, HIDDEN, DEPTH, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 32, 48, 3, 4, 2, 8, 1747
SIZES = [
    f"model.decoder.width={WIDTH}",
    f"model.decoder.blocks.depth={DEPTH}",
    f"model.decoder.blocks.block.mlp.hidden={HIDDEN}",
]
SIZES += [f"model.decoder.blocks.block.attention.qkv.{key}" for key in (f"heads={HEADS}", f"kv_heads={KV_HEADS}")]
SIZES += [f"model.decoder.blocks.block.attention.qkv.head_dim={HEAD_DIM}"]


def small(*overrides: str) -> torch.nn.Module:
    return build_model(declaration("emu3_tiny", [*SIZES, *overrides]), device="meta")


def of_a_block() -> int:
    """Weights of a block's matrices."""
    return WIDTH * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS) + 3 * WIDTH * HIDDEN


@pytest.mark.parametrize("tokens", [1, 24])
def test_operations_and_cache_are_the_closed_forms(tokens: int) -> None:
    found = decoder_plan(small(), name="small", context_length=tokens)
    attention = 4 * tokens * HEADS * HEAD_DIM
    assert found.token_flops == DEPTH * (2 * of_a_block() + attention)
    assert found.head_flops == 2 * WIDTH * VOCABULARY
    assert found.cache == {
        "float32": 8 * DEPTH * KV_HEADS * HEAD_DIM,
        "float16 / bfloat16": 4 * DEPTH * KV_HEADS * HEAD_DIM,
    }
    head = 4 * found.head_flops * tokens
    assert found.step_flops - head >= 3 * DEPTH * 2 * of_a_block() * tokens
    again = decoder_plan(small(), name="small", context_length=tokens, setting=Setting(1, checkpoint="block"))
    assert again.step_flops > found.step_flops
    assert found.parameters == sum(p.numel() for p in small().parameters())


def test_the_visual_tokenizer_is_frozen_and_activations_shrink_with_recomputation() -> None:
    model = small("model.decoder.blocks.block.attention.dropout=0.1")
    plans = {
        policy: decoder_plan(model, name="small", context_length=200, setting=Setting(2, checkpoint=policy))
        for policy in ("none", "around_attention", "block")
    }
    trained = sum(p.numel() for p in model.decoder.parameters())
    assert plans["none"].training.gradients == 4 * trained
    assert model.decoder.blocks.layers[0].attention.dropout == 0.1, "the model itself is left alone"
    sizes = [plan.training.activations for plan in plans.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.6 * sizes[0]


@pytest.mark.parametrize("policy", ["none", "block", "around_attention"])
def test_activations_are_those_of_a_real_step(policy: str) -> None:
    overrides = [
        "model.decoder.blocks.block.attention.dropout=0",
        f"model.decoder.blocks.checkpoint={policy}",
        "model.vision_tokenizer=null",
    ]
    planned = decoder_plan(small(*overrides), name="small", context_length=150, setting=Setting(2, checkpoint=policy))
    model = build_model(declaration("emu3_tiny", [*SIZES, *overrides]), seed=0).train()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    memory = LiveBytes()
    with memory:
        hidden = model(torch.zeros(2, 150, dtype=torch.long))
        hidden.backward(torch.ones_like(hidden))
    assert planned.training.activations == pytest.approx(max(memory.peaks.values()), rel=0.05)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"context_length=300: the decoder has 256 positions"):
        decoder_plan(small("model.decoder.max_positions=256"), name="small", context_length=300)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "emu3_tiny", "context_length=96", "json=true", "device_memory=1GB", *SIZES]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["context_length"] == 96
    assert found["setting"]["batch_size"] == 1
    assert found["fewest_devices"]["training"] == 1
    assert main(["plan", "emu3_tiny", "tflops=1", "context_length=96", *SIZES]) == 0
    assert "training step of a sequence of 96" in capsys.readouterr().out
    assert "training step" in decoder_plan(small(), name="s", context_length=9, device=Device(10**9, 1.0))._repr_html_()


def test_a_token_meets_its_own_half_of_decoupled_blocks() -> None:
    """Both halves are weights to hold; what a token costs is what it costs with one."""
    whole = declaration("eve_v2_tiny")
    half = declaration("eve_v2_tiny")
    half["decoder"]["blocks"]["block"] = half["decoder"]["blocks"]["block"]["block"]
    both, plain = (
        decoder_plan(build_model(node, device="meta"), name="eve", context_length=24) for node in (whole, half)
    )
    assert (both.token_flops, both.step_flops) == (plain.token_flops, plain.step_flops)
    assert both.parameters == whole["card"]["parameters"]
    assert str(plain.parameters) == whole["card"]["parameters_active"].split()[0]
