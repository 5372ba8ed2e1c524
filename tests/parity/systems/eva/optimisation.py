"""EVA-CLIP's optimisation: LAMB steps, and the learning rate and weight decay of each parameter at each step."""

from __future__ import annotations

import re
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request
from harness.words import listed_names, take_known
from omegaconf import OmegaConf
from systems.eva.models import MODEL_FIELDS, make_model, published
from torch import Tensor, nn

from multimodal_zoo.config import compose
from multimodal_zoo.registry import build
from multimodal_zoo.training.groups import read_rules
from multimodal_zoo.training.schedule import WarmupCosine, scheduler

RATES = {"lr", "visual_lr", "text_lr", "wd", "visual_wd", "text_wd", "visual_ld", "text_ld", "warmup", "total_steps"}
#: The reference's names of our towers.
TOWERS = {"image": "visual", "text": "text"}


def lamb_steps(request: Request) -> Outcome:
    """`conf/optim/lamb.yaml` with the case's values; inputs are `param{i}` and `grad{i}_step{s}`."""
    case = request.case
    known = {"betas", "eps", "max_grad_norm", "bias_correction", "grad_averaging", "trust_clip", "always_adapt"}
    config = take_known(case.config, known | {"weight_decay", "lr"}, "config")
    count = len(config["lr"])
    gradients = {name: value for name, value in case.tensors.items() if name.startswith("grad")}
    steps = 1 + max(int(re.fullmatch(r"grad\d+_step(\d+)", name)[1]) for name in gradients)  # type: ignore[index]
    groups = [
        {"params": [nn.Parameter(case.tensors[f"param{i}"].clone())], "lr": lr, "weight_decay": decay}
        for i, (lr, decay) in enumerate(zip(config["lr"], config["weight_decay"], strict=True))
    ]
    node = OmegaConf.to_container(compose(None, ["+optim=lamb"]).optim)
    own = {key: value for key, value in node.items() if key != "groups"}  # type: ignore[union-attr]
    optimizer = build({**own, **{key: config[key] for key in known & config.keys()}}, params=groups)
    outcome: dict[str, Tensor] = {}
    for step in range(steps):
        for i in range(count):
            groups[i]["params"][0].grad = gradients[f"grad{i}_step{step}"].clone()
        optimizer.step()
        outcome |= {f"param{i}_after{step}": groups[i]["params"][0].detach().clone() for i in range(count)}
    return {name: outcome[name] for name in request.call.outputs}


def parameter_groups(case: Case) -> list[dict[str, Any]]:
    """Our groups of the case's model: the rules of `conf/optim/eva_lamb.yaml`, the numbers of the case."""
    known = {*MODEL_FIELDS, *RATES}
    config = take_known(case.config, known, "config")
    values = [f"optim.lr={config['lr']}", f"optim.weight_decay={config['wd']}"]
    for ours, theirs in TOWERS.items():
        tower = f"optim.groups.towers.{ours}"
        lr, decay, rate = (config.get(f"{theirs}_{key}") for key in ("lr", "wd", "ld"))
        values += [f"{tower}.lr={'null' if lr is None else lr}", f"{tower}.layer_decay.rate={rate or 1.0}"]
        values += [f"+{tower}.weight_decay={'null' if decay is None else decay}"]
    optim = OmegaConf.to_container(compose(None, ["+optim=eva_lamb", *values]).optim)
    assert isinstance(optim, dict)
    parameters = dict(make_model(case, apart=RATES).named_parameters())
    return read_rules(optim["groups"]).groups(parameters, optim["lr"], optim["weight_decay"])


def published_places(case: Case, groups: list[dict[str, Any]]) -> dict[str, int]:
    """Published name -> our group: group numbers, stored as weights, travel through the naming table.

    Raises:
        AssertionError: parts of one published tensor lie in different groups.
    """
    marks = {
        name: torch.full_like(parameter, float(number))
        for number, group in enumerate(groups)
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    places = {}
    for name, mark in published(case, marks).items():
        numbers = mark.unique().tolist()
        assert len(numbers) == 1, f"{name} is spread over groups {numbers}"
        places[name] = int(numbers[0])
    return places


def check_groups(case: Case) -> Outcome:
    """The field `parameter_groups`: tower, learning-rate scale and weight decay of every parameter."""
    groups = case.once("groups", lambda: parameter_groups(case))
    places = published_places(case, groups)
    expected = case.fields["parameter_groups"]
    outcome: dict[str, Pair] = {"parameters": Pair(sorted(places), sorted(expected))}
    for name, facts in expected.items():
        take_known(facts, {"tower", "lr_scale", "weight_decay"}, name)
        group = groups[places[name]]
        outcome[f"{name}: tower"] = Pair(TOWERS.get(group["tower"], "other"), facts["tower"])
        # a power and a product of factors differ in the last bit
        outcome[f"{name}: lr_scale"] = Pair(round(group["scale"], 12), round(facts["lr_scale"], 12))
        outcome[f"{name}: weight_decay"] = Pair(group["weight_decay"], facts["weight_decay"])
    return outcome


def learning_rates(request: Request) -> Outcome:
    """Rows: optimiser steps; columns: the parameters that the note lists."""
    case = request.case
    columns = listed_names(request.call.note, case.manifest)
    groups = case.once("groups", lambda: parameter_groups(case))
    places = published_places(case, groups)
    optimizer = torch.optim.SGD(groups)
    total = case.config["total_steps"]
    schedule = scheduler(optimizer, WarmupCosine(warmup=case.config["warmup"]), total=total)
    rows = []
    for _ in range(total):
        rows.append([optimizer.param_groups[places[name]]["lr"] for name in columns])
        optimizer.step()
        schedule.step()
    (output,) = request.call.outputs
    return {output: torch.tensor(rows, dtype=torch.float64)}
