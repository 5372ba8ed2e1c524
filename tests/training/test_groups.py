"""Parameter groups against the published layer-wise decay, freezing, and the errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from multimodal_zoo.training.groups import read_rules, table


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


def test_some_flat_parameters_may_decay() -> None:
    shapes = {"a.qkv.bias": (6,), "a.out.bias": (2,), "a.weight": (2, 2), "table": (3, 2)}
    parameters = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    groups = read_rules({"decay": ["*.qkv.bias"], "no_decay": ["table"]}).groups(parameters, lr=1.0, weight_decay=0.1)
    decayed = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decayed == {"a.qkv.bias": 0.1, "a.out.bias": 0.0, "a.weight": 0.1, "table": 0.0}
    with pytest.raises(ValueError, match="no_decay and decay both name table"):
        read_rules({"decay": ["t*"], "no_decay": ["table"]}).groups(parameters, lr=1.0, weight_decay=0.1)


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


def test_only_some_parameters_train() -> None:
    names = ("a.weight", "a.adapter.down", "b.adapter.down", "b.bias")
    parameters = {name: nn.Parameter(torch.zeros(2)) for name in names}
    rules = read_rules({"only": ["*.adapter.*"], "frozen": ["b.*"]})
    assert rules.freeze(parameters) == ["a.weight", "b.adapter.down", "b.bias"]
    assert [name for name, one in parameters.items() if one.requires_grad] == ["a.adapter.down"]
    with pytest.raises(ValueError, match=r"optim.groups.only: pattern 'c\.\*' matches no parameter"):
        read_rules({"only": ["c.*"]}).freeze(parameters)


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
