from __future__ import annotations

import io
import itertools
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from multimodal_zoo.analysis import Setting, plan
from multimodal_zoo.analysis.activations import activations, kept_by
from multimodal_zoo.analysis.memory import inference_bytes, parts_of, training_bytes
from multimodal_zoo.catalogue import list_group
from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.checkpoints.tables.clip_config import sizes_from_open_clip
from multimodal_zoo.config import compose
from multimodal_zoo.registry import build

SMALL = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 50, "width": 64, "heads": 1, "layers": 2},
}


def small(checkpoint: str = "none", device: str = "cpu") -> nn.Module:
    node = sizes_from_open_clip(SMALL).node()
    for tower in ("image", "text"):
        node[tower]["blocks"]["checkpoint"] = checkpoint
    with torch.device(device):
        return build({k: v for k, v in node.items() if k not in ("processor", "card")}, path="model")


def inputs(batch: int):
    return torch.randn(batch, 3, 32, 32), torch.zeros(batch, 12, dtype=torch.long)


def measured(model: nn.Module, batch: int) -> int:
    """What a real forward pass keeps: every storage once, weights and their views never."""
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(*inputs(batch))  # held, so that no storage is given away twice
    del outputs
    return sum(size for pointer, size in storages.items() if pointer not in weights)


@pytest.mark.parametrize("batch", [2, 7, 16])
def test_activations_are_what_a_real_pass_keeps(batch):
    real = measured(small().train(), batch)
    line = activations(small(device="meta"), inputs)
    assert line.at(batch) == pytest.approx(real, rel=0.1)
    assert kept_by(small(), lambda: inputs(batch)).total == pytest.approx(real, rel=0.02)


def test_the_plan_of_a_checkpointed_model_is_that_of_its_blocks():
    kept = kept_by(small("block", "meta"), lambda: inputs(4))
    plain = kept_by(small(device="meta"), lambda: inputs(4))
    assert kept == plain  # the model's own setting does not change what is asked for
    tokens = [4 * 17 * 64 * 4] * 3 + [4 * 12 * 64 * 4] * 2
    assert list(kept.inputs) == tokens
    assert kept.total == kept.outside + sum(kept.inside)
    largest = max(a - b for a, b in zip(kept.inside, kept.inputs, strict=True))
    assert kept.checkpointed == kept.outside + sum(tokens) + largest
    assert kept.checkpointed < kept.total / 2


def allocated(run) -> list[int]:
    """Sizes that torch's CPU allocator handed out (and took back, negative) while `run` ran, in order."""
    with torch.profiler.profile(profile_memory=True) as profile:
        result = run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    del result
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


@pytest.mark.parametrize("checkpoint", ["none", "block"])
def test_allocations_of_a_real_step_are_as_planned(checkpoint):
    model, arguments = small(checkpoint).train(), inputs(64)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    kept, outputs = kept_by(model, lambda: inputs(64)), []
    live = sum(allocated(lambda: outputs.append(model(*arguments))))
    planned = kept.outside + sum(kept.inputs) if checkpoint == "block" else kept.total
    assert live == pytest.approx(planned, rel=0.02)
    loss = outputs[0].image.sum() + outputs[0].text.sum()
    peak = live + max(itertools.accumulate(allocated(loss.backward)))
    estimate = kept.checkpointed if checkpoint == "block" else kept.total
    assert estimate == pytest.approx(peak, rel=0.15)  # the gradients of the layer at work come on top


def test_mixed_precision_keeps_less():
    full = activations(small(device="meta"), inputs)
    mixed = activations(small(device="meta"), inputs, autocast=torch.bfloat16)
    assert mixed.per_sample < 0.8 * full.per_sample
    assert mixed.fixed > full.fixed  # the weights' copies


def test_nothing_is_allocated_for_a_large_model():
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = plan(
        variant_on_meta("clip_vit_l14"),
        name="clip_vit_l14",
        image_size=224,
        text_length=77,
        setting=Setting(batch_size=4096),
    )
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert result.training.total > 1e12
    assert grown < 0.3e9  # the weights alone are 1.7 GB
    assert result.parameters == 427_616_513
    full = result.full_image_flops / 1e9, result.full_text_flops / 1e9
    assert full == pytest.approx((162.03, 13.30), rel=0.01)  # open_clip's published profile


def test_weights_by_format():
    model = nn.Sequential(nn.Linear(10, 4), nn.LayerNorm(4))
    count = 10 * 4 + 4 + 8
    assert inference_bytes(model) == {
        "float32": 4 * count,
        "float16 / bfloat16": 2 * count,
        "int8": 40 + 2 * 4 + 2 * 12,
    }


@pytest.mark.parametrize(
    ("strategy", "devices", "share", "communication"),
    [
        ("single", 1, 1, 0),
        ("ddp", 4, 1, 4 * 300),
        ("fsdp", 4, 4, 2 * 4 * 110),
        ("fsdp", 1, 1, 0),
        ("deepspeed", 4, 4, 2 * 4 * 110),
    ],
)
def test_strategies_share_what_they_share(strategy, devices, share, communication):
    blocks = nn.ModuleList(nn.Linear(10, 10) for _ in range(2))
    model = nn.ModuleDict({"blocks": blocks, "head": nn.Linear(8, 10, bias=False)})  # 2 x 110 + 80 = 300 weights
    found = training_bytes(model, 5, Setting(devices=devices, strategy=strategy))
    assert (found.weights, found.gradients, found.optimizer) == (1200 // share, 1200 // share, 2400 // share)
    assert (found.communication, found.activations) == (communication, 5)
    assert found.total == 4800 // share + communication + 5


@pytest.mark.parametrize(("stage", "gradients"), [(1, 1200), (2, 300)])
def test_the_lower_stages_of_deepspeed_keep_the_weights_whole(stage, gradients):
    found = training_bytes(nn.Linear(29, 10), 0, Setting(devices=4, strategy=f"deepspeed_stage_{stage}"))
    assert (found.weights, found.gradients, found.optimizer, found.communication) == (1200, gradients, 600, 1200)


@pytest.mark.parametrize("name", list_group("optim"))
def test_states_are_those_that_the_optimisers_of_the_zoo_keep(name):
    config = {k: v for k, v in compose(None, [f"+optim={name}"]).optim.items() if k not in ("groups", "fused")}
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1))
    optimizer = build(config, path="optim", params=list(model.parameters()))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    states = [s for state in optimizer.state.values() for s in state.values() if torch.is_tensor(s) and s.ndim]
    assert training_bytes(model, 0, Setting(optimizer=name)).optimizer == sum(s.numel() * 4 for s in states)


def test_frozen_weights_cost_no_gradients():
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    model[0].requires_grad_(False)
    found = training_bytes(model, 0, Setting(precision="bf16-true", optimizer="sgd"))
    assert (found.weights, found.gradients, found.optimizer) == (2 * 220, 2 * 110, 2 * 110)
    assert [(part.parameters, part.trainable) for part in parts_of(model)] == [(110, 0), (110, 110)]


def test_shared_weights_count_once():
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    assert [(part.name, part.parameters) for part in parts_of(model)] == [("a", 9)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "dpp"}, "strategy='dpp'.*single, ddp, fsdp"),
        ({"precision": "fp16"}, "precision='fp16'.*16-mixed"),
        ({"optimizer": "adamx"}, "optimizer='adamx'.*adamw"),
        ({"checkpoint": "blocks"}, "checkpoint='blocks'.*none, block"),
        ({"batch_size": 0}, "at least 1"),
        ({"devices": 2}, "devices=2 under strategy='single'"),
    ],
)
def test_unknown_words_are_errors(change, message):
    with pytest.raises(ValueError, match=message):
        Setting(**change)


def test_a_plan_renders_everywhere():
    setting = Setting(batch_size=256, devices=8, strategy="fsdp", precision="bf16-mixed", checkpoint="block")
    result = plan(small(device="meta"), name="small <clip>", image_size=32, text_length=12, setting=setting)
    console = Console(file=io.StringIO(), width=100)
    console.print(result)
    text = console.file.getvalue()
    assert "fsdp" in text
    assert "GFLOP" in text
    assert "small &lt;clip&gt;" in result._repr_html_()
    numbers = json.loads(json.dumps(result.as_dict()))
    assert numbers["parameters"] == sum(numbers["parts"].values()) == result.parameters
    assert numbers["training_bytes"]["total"] == result.training.total
