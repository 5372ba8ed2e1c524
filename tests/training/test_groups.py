"""Parameter groups against the published layer-wise decay, freezing, and the errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from multimodal_zoo.training.groups import read_rules, table
from multimodal_zoo.training.schedule import WarmupCosine, scheduler

GOLDEN = Path(__file__).parent / "goldens" / "eva_clip" / "optimizer_groups_and_schedule"
COLUMNS = (
    "visual.cls_token",
    "visual.blocks.0.attn.q_proj.weight",
    "visual.blocks.0.attn.q_bias",
    "visual.norm.weight",
    "visual.head.weight",
    "text.token_embedding.weight",
    "text.transformer.resblocks.1.mlp.c_fc.weight",
    "text.text_projection",
    "logit_scale",
)
EVA_CLIP = {
    "no_decay": ["visual.pos_embed", "visual.cls_token", "text.positional_embedding"],
    "no_decay_rank": 1,
    "towers": {
        "image": {
            "patterns": ["visual.*"],
            "lr": 4e-4,
            "layer_decay": {
                "rate": 0.85,
                "blocks": "visual.blocks.{}.",
                "stem": ["visual.patch_embed.*", "visual.pos_embed", "visual.cls_token"],
            },
        },
        "text": {
            "patterns": ["text.*"],
            "lr": 4e-5,
            "layer_decay": {
                "rate": 0.75,
                "blocks": "text.transformer.resblocks.{}.",
                "stem": ["text.token_embedding.*", "text.positional_embedding"],
            },
        },
    },
}


def eva_parameters() -> dict[str, nn.Parameter]:
    shapes = json.loads((GOLDEN / "case.json").read_text())["manifest"]
    return {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}


def test_learning_rates_equal_the_published_ones() -> None:
    parameters = eva_parameters()
    groups = read_rules(EVA_CLIP).groups(parameters, lr=5e-4, weight_decay=0.05)
    where = {name: number for number, group in enumerate(groups) for name in group["names"]}
    assert set(where) == set(parameters)
    optimizer = torch.optim.AdamW(groups)
    schedule = scheduler(optimizer, WarmupCosine(warmup=10), total=40)
    rows = []
    for _ in range(40):
        rows.append([optimizer.param_groups[where[name]]["lr"] for name in COLUMNS])
        optimizer.step()
        schedule.step()
    expected = load_file(GOLDEN / "io.safetensors")["lr"]
    torch.testing.assert_close(torch.tensor(rows, dtype=torch.float64), expected, atol=1e-12, rtol=1e-9)


def test_weight_decay_spares_vectors_and_named_tensors() -> None:
    groups = read_rules(EVA_CLIP).groups(eva_parameters(), lr=5e-4, weight_decay=0.05)
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    spared = {name for name, value in decay.items() if value == 0}
    vectors = {n for n, p in eva_parameters().items() if p.ndim <= 1}
    assert spared == vectors | {"visual.pos_embed", "visual.cls_token", "text.positional_embedding"}
    assert {decay[n] for n in ("text.text_projection", "visual.head.weight", "text.token_embedding.weight")} == {0.05}


def test_towers_override_weight_decay_and_pass_options() -> None:
    parameters = {"a.weight": nn.Parameter(torch.zeros(2, 2)), "b.weight": nn.Parameter(torch.zeros(2, 2))}
    rules = read_rules({"towers": {"a": {"patterns": ["a.*"], "weight_decay": 0.3, "options": {"betas": (0.5, 0.6)}}}})
    optimizer = torch.optim.AdamW(rules.groups(parameters, lr=1.0, weight_decay=0.1))
    assert [(g["weight_decay"], g["betas"]) for g in optimizer.param_groups] == [(0.3, (0.5, 0.6)), (0.1, (0.9, 0.999))]


def test_optional_patterns_may_match_nothing() -> None:
    parameters = {name: nn.Parameter(torch.zeros(2, 3)) for name in ("image.stem", "image.block", "text.table")}
    tower = {"patterns": ["text.*"], "optional": ["image.stem", "image.patches.*"], "weight_decay": 0.0}
    groups = read_rules({"towers": {"x": tower}}).groups(parameters, lr=1e-3, weight_decay=0.1)
    assert {group["weight_decay"]: group["names"] for group in groups} == {
        0.0: ["image.stem", "text.table"],
        0.1: ["image.block"],
    }


def test_freezing_stops_gradients_and_shows_in_the_table() -> None:
    parameters = {"image.weight": nn.Parameter(torch.zeros(2, 3)), "text.weight": nn.Parameter(torch.zeros(5))}
    rules = read_rules({"frozen": ["image.*"]})
    assert rules.freeze(parameters) == ["image.weight"]
    groups = rules.groups(parameters, lr=1e-3, weight_decay=0.1)
    assert [group["names"] for group in groups] == [["text.weight"]]
    from rich.console import Console

    console = Console(record=True, width=100)
    console.print(table(groups, {"image.weight": 6}))
    shown = console.export_text()
    assert "text" in shown
    assert "frozen" in shown
    assert "0.001" in shown


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"frozen": ["visual.*"]},
            r"optim.groups.frozen: pattern 'visual.\*' matches no parameter; names look like im",
        ),
        ({"no_decay": ["posi"]}, "optim.groups.no_decay: pattern 'posi'"),
        ({"towers": {"x": {"patterns": ["nothing"]}}}, "optim.groups.towers.x.patterns: pattern 'nothing'"),
        (
            {"towers": {"x": {"patterns": ["image.*"]}, "y": {"patterns": ["*weight"]}}},
            "both 'x' and 'y' claim image.weight",
        ),
        (
            {"towers": {"x": {"patterns": ["image.*"], "layer_decay": {"rate": 0.5, "blocks": "image.layers.{}."}}}},
            "towers.x.layer_decay.blocks: 'image.layers.{}.' matches no",
        ),
        ({"frozen": ["*"]}, "leaves nothing to train"),
    ],
)
def test_patterns_that_do_not_fit_are_errors(rules: dict, message: str) -> None:
    parameters = {"image.weight": nn.Parameter(torch.zeros(2, 3)), "text.weight": nn.Parameter(torch.zeros(5))}
    read = read_rules(rules)

    def apply() -> None:
        read.freeze(parameters)
        read.groups(parameters, lr=1e-3, weight_decay=0.1)

    with pytest.raises(ValueError, match=message):
        apply()


def test_an_unknown_key_names_its_path() -> None:
    with pytest.raises(TypeError, match=r"optim.groups.towers.x.patern .*patterns"):
        read_rules({"towers": {"x": {"patern": ["image.*"]}}})
