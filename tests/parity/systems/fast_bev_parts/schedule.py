"""Fast-BEV's case of training: learning rates, class-balanced drawing, groups of the optimiser."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from harness.cases import Case, seeded
from harness.run import Outcome, Request, System
from harness.words import take_known
from torch import nn

from multimodal_zoo.data.balanced_order import balanced_indices, picks_per_class
from multimodal_zoo.training.clipping import clip_gradients
from multimodal_zoo.training.groups import ParameterRules, Tower
from multimodal_zoo.training.schedule import PolyWithWarmup

KNOWN = {"optimizer", "grad_clip", "lr_config", "max_iters", "note"}


def _optimizer(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, tuple[float, float]]]:
    """Arguments of AdamW, and for parts the multipliers of learning rate and decay."""
    given = take_known(config, {"type", "lr", "weight_decay", "betas", "eps", "paramwise_cfg"}, "optimizer")
    assert given["type"] in ("AdamW2", "AdamW")
    parts = take_known(given.get("paramwise_cfg") or {}, {"custom_keys"}, "paramwise_cfg").get("custom_keys", {})
    rates = {}
    for key, node in parts.items():
        rule = take_known(node, {"lr_mult", "decay_mult"}, f"custom_keys.{key}")
        rates[key] = rule.get("lr_mult", 1.0), rule.get("decay_mult", 1.0)
    rest = {"betas": (0.9, 0.999), "eps": 1e-8, **{key: given[key] for key in ("betas", "eps") if key in given}}
    return {"lr": given["lr"], "weight_decay": given["weight_decay"], **rest}, rates


def _rules(arguments: Mapping[str, Any], rates: Mapping[str, tuple[float, float]]) -> ParameterRules:
    lr, decay = arguments["lr"], arguments["weight_decay"]
    towers = {key: Tower([f"*{key}*"], lr=lr * rate, weight_decay=decay * kept) for key, (rate, kept) in rates.items()}
    return ParameterRules(no_decay_rank=-1, towers=towers)


def learning_rates(request: Request) -> Outcome:
    """The rate of each group at some iterations."""
    case, call = request.case, request.call
    config = take_known(case.config, KNOWN, "config")
    known = {"policy", "warmup", "warmup_iters", "warmup_ratio", "power", "min_lr", "by_epoch"}
    given = take_known(config["lr_config"], known, "lr_config")
    assert given.get("policy", "poly") == "poly"
    assert not given.get("by_epoch", False)
    assert given.get("warmup") in ("linear", None)
    warm = given.get("warmup") is not None
    warmup = (given["warmup_iters"], given["warmup_ratio"]) if warm else (0, 0.0)
    arguments, rates = _optimizer(config["optimizer"])
    (steps,) = case.take(call)
    columns = []
    for rate in [*(arguments["lr"] * factor for factor, _ in rates.values()), arguments["lr"]]:
        # the published floor is a rate, ours a share of one
        schedule = PolyWithWarmup(*warmup, given.get("power", 1.0), given.get("min_lr", 0.0) / rate)
        columns.append([rate * schedule(int(step), config["max_iters"]) for step in steps])
    return {call.outputs[0]: torch.tensor(columns, dtype=torch.float64).T}


def balanced(request: Request) -> Outcome:
    """How often each class is drawn, and with the published generator which samples."""
    (presence,) = request.case.take(request.call)
    seed = re.search(r"np\.random\.seed\((\d+)\)", request.call.note)
    assert seed is not None
    generator = np.random.RandomState(int(seed[1]))
    table = presence.bool().numpy()
    drawn = balanced_indices(table, lambda count, picks: generator.choice(count, picks))
    return {"picks_per_class": torch.tensor(picks_per_class(table)), "sample_indices": torch.tensor(drawn)}


def steps(request: Request) -> Outcome:
    """A net of two layers, trained by the rules of a recipe."""
    case, call = request.case, request.call
    config = take_known(case.config, KNOWN, "config")
    clip = take_known(config["grad_clip"], {"max_norm", "norm_type"}, "grad_clip")
    assert clip.get("norm_type", 2) == 2
    found = re.search(r"backbone: Linear\((\d+),(\d+)\), head: Linear\((\d+),(\d+)\)", call.note)
    scale, count = re.search(r"x\*\(s\+1\)\*(\d+)", call.note), re.search(r"weights after (\d+) steps", call.note)
    assert None not in (found, scale, count), call.note
    sizes = list(map(int, found.groups()))
    net = nn.ModuleDict({"backbone": nn.Linear(sizes[0], sizes[1]), "head": nn.Linear(sizes[2], sizes[3])})
    net.load_state_dict({key: seeded(key, value.shape) for key, value in net.state_dict().items()})
    arguments, rates = _optimizer(config["optimizer"])
    parameters = dict(net.named_parameters())
    groups = _rules(arguments, rates).groups(parameters, arguments["lr"], arguments["weight_decay"])
    kept = [{key: one[key] for key in ("params", "lr", "weight_decay")} for one in groups]
    optimizer = torch.optim.AdamW(kept, **arguments)
    (x,) = case.take(call)
    rows = []
    for step in range(int(count[1])):
        optimizer.zero_grad()
        loss = net["head"](net["backbone"](x * (step + 1) * int(scale[1])).relu()).square().sum()
        loss.backward()
        rows.append([loss.item(), float(clip_gradients(list(parameters.values()), clip["max_norm"]))])
        optimizer.step()
    return {
        "loss_and_norm": torch.tensor(rows),
        "backbone_weight": net["backbone"].weight.detach(),
        "head_weight": net["head"].weight.detach(),
    }


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The methods of this case."""
    system.call(r"PolyLrUpdaterHook.*")(learning_rates)
    system.call(r"CBGSDataset\._get_sample_indices")(balanced)
    system.call(r"AdamW with a backbone learning-rate multiplier and gradient clipping")(steps)
