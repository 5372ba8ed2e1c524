"""Plans of detectors, masked students and visual tokenizers, against what real steps hold and compute."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from multimodal_zoo.analysis import Setting, sample_of, sample_plan
from multimodal_zoo.analysis.memory import activation_bytes
from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.catalogue import list_group
from multimodal_zoo.cli import main
from multimodal_zoo.commands.plan_recipe import trained_as
from multimodal_zoo.config import compose
from multimodal_zoo.zoo import build_model, declaration

GRID = "{type: voxel_grid, counts: [40, 40, 2], size: [2.5, 2.5, 3.0], centre: [0, 0, -1]}"
SMALL = {
    "fast_bev_tiny": [
        *("model.processor.view.size=[48,128]", f"model.lift.grids=[{GRID}]", "model.bev_encoder.in_channels=128"),
    ],
    "eva_mim_tiny": ["model.image.blocks.depth=3"],
    "emu3_vision_tiny": [],
}
SIDE, BATCH = 32, 2


def around(batch: int, frames: int, cameras: int, size: tuple[int, int]) -> Cameras:
    """Cameras in a circle, a metre and a half up."""
    height, width = size
    focus = torch.tensor([[0.6 * width, 0, width / 2], [0, 0.6 * width, height / 2], [0, 0, 1]], dtype=torch.float64)
    found = torch.eye(4, dtype=torch.float64).repeat(batch, frames, cameras, 1, 1)
    for number in range(cameras):
        cos, sin = (function(2 * math.pi * number / cameras) for function in (math.cos, math.sin))
        turn = torch.tensor([[cos, -sin, 0, 0], [0, 0, -1, 1.5], [sin, cos, 0, 0]], dtype=torch.float64)
        found[:, :, number, :3] = focus @ turn
    return Cameras(found, size)


def real(name: str) -> tuple[nn.Module, dict[str, Any], Callable[[], Any]]:
    """A small model, its declaration, and what runs it on pictures as training does."""
    config = declaration(name, SMALL[name])
    model = build_model(config, seed=0).train()
    if name == "emu3_vision_tiny":
        pixels = torch.randn(BATCH, 3, SIDE, SIDE)
        return model, config, lambda: model(pixels)
    if name == "eva_mim_tiny":
        side, patch = model.image.image_size, model.image.patches.patch_size
        images, mask = torch.randn(BATCH, 3, side, side), torch.ones(BATCH, (side // patch) ** 2, dtype=torch.bool)
        return model, config, lambda: model(images, mask)
    size = tuple(config["processor"]["view"]["size"])
    cameras = around(BATCH, model.frames, len(config["processor"]["cameras"]), size)
    images = torch.randn(*cameras.lidar_to_image.shape[:3], 3, *size)
    return model, config, lambda: model(images, cameras)


def allocated(run: Callable[[], object]) -> list[int]:
    """Sizes that torch's CPU allocator handed out (and took back, negative) while `run` ran, in order."""
    with torch.profiler.profile(profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


@pytest.mark.parametrize("name", SMALL)
def test_the_peak_of_a_step_is_as_planned(name: str) -> None:
    model, config, run = real(name)
    sample = sample_of(model, config, SIDE)
    assert sample is not None
    planned = activation_bytes(sample.runs, sample.inputs, Setting(batch_size=BATCH))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run()  # what is made once and kept

    def step() -> None:
        """Forward and backward, as a training step does them."""
        results = [one for one in tree_leaves(run()) if isinstance(one, Tensor) and one.requires_grad]
        torch.autograd.backward(results, [torch.empty_like(result) for result in results])

    # convolutions take workspaces of their own, and so much only at this size
    near = 0.2 if name == "fast_bev_tiny" else 0.1
    assert planned == pytest.approx(max(itertools.accumulate(allocated(step))), rel=near)


@pytest.mark.parametrize("name", SMALL)
def test_operations_are_those_of_a_real_pass(name: str) -> None:
    model, config, run = real(name)
    sample = sample_of(model, config, SIDE)
    assert sample is not None
    found = sample_plan(model, sample, name=name)
    model.eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()  # the counter knows no fused attention of CPUs
    assert found.sample_flops * BATCH == counter.get_total_flops()
    assert 2 * found.sample_flops < found.step_flops <= 3 * found.sample_flops
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "fast_bev_tiny", "tflops=1", *SMALL["fast_bev_tiny"]]) == 0
    shown = capsys.readouterr().out
    assert "2 x 6 pictures of 48 x 128 pixels" in shown
    assert "at 1 TFLOP/s" in shown
    assert main(["plan", "emu3_vision_tiny", "image_size=64", "json=true"]) == 0
    assert json.loads(capsys.readouterr().out)["sample"] == "a picture of 64 x 64 pixels"


def test_a_recipe_says_how_it_trains(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["model=eva_clip_tiny", "initial_weights=null", "as_trained=true", "json=true"]
    assert main(["plan", "eva_clip/b16", *words, "batch_size=4"]) == 0
    assert json.loads(capsys.readouterr().out)["setting"] == {
        "batch_size": 4,
        "devices": 64,  # of eight nodes
        "strategy": "ddp",
        "precision": "16-mixed",
        "checkpoint": "declared",
        "optimizer": "eva_lamb",
    }
    words = ["model=emu3_tiny", "model.decoder.max_positions=9216", "as_trained=true", "devices=1", "json=true"]
    assert main(["plan", "emu3/dpo", *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["context_length"], found["setting"]["strategy"]) == (9216, "single")
    assert main(["plan", "clip_tiny", "as_trained=true"]) == 1
    assert "clip_tiny is no recipe" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", list_group("trainer"))
def test_each_trainer_is_planned_with_what_it_shares(trainer: str) -> None:
    recipe = compose("clip/vit_b32", [f"trainer={trainer}", "trainer.devices=2"])
    word = trained_as(recipe, {"optim": "adamw"}, {})["strategy"]
    stages = {"deepspeed": 1, "deepspeed_zero1": 1, "deepspeed_zero3": 3}
    wanted = f"deepspeed_stage_{stages[trainer]}" if trainer in stages else trainer.removesuffix("_cpu")
    assert word == ("ddp" if wanted in ("cpu", "gpu") else wanted)
    assert Setting(devices=2, strategy=word)
    with pytest.raises(ValueError, match=r"'deepspeed' is not known; .*deepspeed_stage_3"):
        Setting(strategy="deepspeed")  # which stage?


def test_declared_recomputation_is_that_of_each_stack() -> None:
    model, config, _ = real("eva_mim_tiny")
    sample = sample_of(model, config)
    assert sample is not None
    model.image.blocks.checkpoint = "block"
    sizes = {
        policy: activation_bytes(sample.runs, sample.inputs, Setting(batch_size=BATCH, checkpoint=policy))
        for policy in ("none", "block", "declared")
    }
    assert sizes["declared"] == sizes["block"] < sizes["none"]
