from __future__ import annotations

import io
import itertools
import json
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from multimodal_zoo.analysis import Device, Setting, plan
from multimodal_zoo.analysis.formats import inference_bytes
from multimodal_zoo.analysis.memory import activation_bytes, fewest_devices, parts_of, training_bytes
from multimodal_zoo.analysis.peak import step_peak
from multimodal_zoo.catalogue import list_group
from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.checkpoints.tables.clip_config import sizes_from_open_clip
from multimodal_zoo.config import compose
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model, declaration

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
    return torch.randn(batch, 3, 32, 32), torch.arange(12).repeat(batch, 1)  # full texts: shorter ones are packed


def allocated(run) -> list[int]:
    """Sizes that torch's CPU allocator handed out (and took back, negative) while `run` ran, in order."""
    with torch.profiler.profile(profile_memory=True) as profile:
        result = run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    del result
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


#: Variants whose steps are measured, small and made smaller: towers of each published pattern.
STEPS = {
    "eva_clip_tiny": [],
    "patch dropout": ["model.image.patch_dropout.rate=0.5"],
    "eva_clip_18b": [
        *(f"model.image.{key}" for key in ("width=192", "blocks.depth=3", "blocks.block.attention.qkv.heads=3")),
        *(f"model.image.{key}" for key in ("blocks.block.attention.qkv.head_dim=64", "blocks.block.mlp.hidden=960")),
        *(f"model.text.{key}" for key in ("width=256", "blocks.depth=2", "blocks.block.attention.qkv.heads=4")),
        "model.text.blocks.block.mlp.hidden=1024",
        "model.text.vocab_size=514",
    ],
}


def step_of(name: str, checkpoint: str) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    both = [f"model.{tower}.blocks.checkpoint={checkpoint}" for tower in ("image", "text")]
    variant = name if name.startswith("eva") else "eva_clip_tiny"
    config = declaration(variant, [*STEPS[name], *both])
    side, length = config["image"]["image_size"], config["text"]["context_length"]
    return build_model(config).train(), (torch.randn(8, 3, side, side), torch.arange(length).repeat(8, 1))


@pytest.mark.parametrize("checkpoint", ["none", "block"])
@pytest.mark.parametrize("name", STEPS)
def test_the_peak_of_a_step_is_as_planned(name, checkpoint):
    model, arguments = step_of(name, checkpoint)
    planned = step_peak(
        model, lambda: tuple(torch.zeros(a.shape, dtype=a.dtype) for a in arguments), checkpoint=checkpoint
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def step() -> None:
        """Forward and backward, as a training step does them."""
        results = model(*arguments)
        torch.autograd.backward(list(results), [torch.empty_like(result) for result in results])

    assert planned == pytest.approx(max(itertools.accumulate(allocated(step))), rel=0.01)


def test_less_precision_and_recomputing_take_less():
    model = small(device="meta")
    found = {
        words: activation_bytes(model, inputs, Setting(batch_size=64, precision=words[0], checkpoint=words[1]))
        for words in itertools.product(("32-true", "bf16-mixed", "bf16-true"), ("none", "block"))
    }
    assert found["bf16-true", "none"] == pytest.approx(found["32-true", "none"] / 2, rel=0.02)
    assert found["bf16-true", "none"] < found["bf16-mixed", "none"] < 0.8 * found["32-true", "none"]
    assert all(found[word, "block"] < 0.6 * found[word, "none"] for word in ("32-true", "bf16-mixed", "bf16-true"))


def test_sharded_weights_are_gathered_in_half_precision():
    model = small(device="meta")
    few = Setting(batch_size=2, precision="bf16-mixed")
    copies = sum(p.numel() for p in model.parameters() if p.ndim > 1) * 2
    held = [activation_bytes(model, inputs, replace(few, strategy=word)) for word in ("single", "fsdp")]
    assert held[0] - held[1] > 0.7 * copies  # on one device autocast keeps copies of the matrices


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
        "int8": 2 * count,  # no blocks: nothing is quantised
        "int4": 2 * count,
    }
    blocks = nn.ModuleList(nn.Linear(256, 16) for _ in range(2)).append(nn.Linear(24, 8))
    found = inference_bytes(nn.ModuleDict({"blocks": blocks, "head": nn.Linear(4, 4)}))
    rest = 2 * (2 * 16 + 8 + 4 * 4 + 4)
    narrow = 24 * 8 + 8 * 5  # no multiple of the group: in 8 bits
    assert found["int8"] == 2 * (256 * 16 + 16 * 5) + narrow + rest
    assert found["int4"] == 2 * (256 * 16 // 2 + 16 * 2 * 4) + narrow + rest


@pytest.mark.parametrize(
    ("strategy", "devices", "share", "communication"),
    [
        ("single", 1, 1, 0),
        ("ddp", 4, 1, 4 * 300),
        ("fsdp", 4, 4, 3 * 4 * 110),
        ("fsdp", 1, 1, 0),
        ("deepspeed_stage_3", 4, 4, 3 * 4 * 110),
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


@pytest.mark.parametrize(
    ("stage", "parts"),
    [(1, (2, 2, 12 / 8)), (2, (2, 2 / 8, 12 / 8)), (3, (2 / 8, 2 / 8, 12 / 8))],
)
def test_deepspeed_in_half_precision_is_the_table_of_its_paper(stage, parts):
    model = nn.Linear(100, 80, bias=False)  # arXiv 1910.02054, section 5: 2 + 2 + 12 bytes a weight
    found = training_bytes(model, 0, Setting(devices=8, strategy=f"deepspeed_stage_{stage}", precision="bf16-mixed"))
    assert (found.weights, found.gradients, found.optimizer) == tuple(8000 * part for part in parts)


def test_the_fewest_devices_are_found():
    model = nn.ModuleDict({"blocks": nn.ModuleList(nn.Linear(100, 100, bias=False) for _ in range(10))})
    sharded = Setting(strategy="fsdp")  # 1.6 MB of states, and 0.12 MB for what is whole at one time
    for memory in (2_000_000, 800_000, 200_000):
        count = fewest_devices(model, 0, sharded, memory)
        assert training_bytes(model, 0, replace(sharded, devices=count)).total <= 0.9 * memory
        if count > 1:
            assert training_bytes(model, 0, replace(sharded, devices=count - 1)).total > 0.9 * memory
    assert fewest_devices(model, 0, sharded, 100_000) is None
    assert fewest_devices(model, 0, Setting(), 1_000_000) is None
    assert fewest_devices(model, 0, Setting(), 2_000_000) == 1


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
    result = plan(
        small(device="meta"),
        name="small <clip>",
        image_size=32,
        text_length=12,
        setting=setting,
        device=Device(memory=int(2e9), tflops=0.1),
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(result)
    text = console.file.getvalue()
    assert "fsdp" in text
    assert "GFLOP" in text
    assert "at 0.1 TFLOP/s" in text
    assert "1.80 GB of 2.00 GB" in text
    assert "small &lt;clip&gt;" in result._repr_html_()
    numbers = json.loads(json.dumps(result.as_dict()))
    assert numbers["parameters"] == sum(numbers["parts"].values()) == result.parameters
    assert numbers["training_bytes"]["total"] == result.training.total
