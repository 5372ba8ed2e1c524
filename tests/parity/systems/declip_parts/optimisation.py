"""DeCLIP's optimisation: the learning rate of an iteration, and which parameters decay."""

from __future__ import annotations

import re
from contextlib import suppress

import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request
from harness.words import take_known
from omegaconf import OmegaConf
from torch import nn

from multimodal_zoo.checkpoints.errors import CheckpointError
from multimodal_zoo.checkpoints.tables import declip
from multimodal_zoo.config import compose
from multimodal_zoo.registry import build
from multimodal_zoo.training.groups import read_rules
from multimodal_zoo.zoo import create

#: Kinds of parameter that the released configurations free of weight decay.
FREE = ("bn_w", "bn_b", "ln_w", "ln_b", "bias", "logit_scale")

#: Name in a note -> what it is; `(peak)` may stand between name and number.
RATE = re.compile(r"\b(base_lr|warmup_lr|warmup_steps|max_iter|min_lr)\s+(?:\(peak\)\s+)?([\d.eE+-]+)")


def learning_rate(request: Request) -> Outcome:
    """`conf/schedule/declip.yaml` with the numbers of the call's note; iterations count from 1, our steps from 0."""
    take_known(request.case.config, set(), "config")
    facts = {name: float(number.rstrip(".")) for name, number in RATE.findall(request.call.note)}
    assert facts.keys() == {"base_lr", "warmup_lr", "warmup_steps", "max_iter", "min_lr"}, request.call.note
    peak = facts["warmup_lr"]
    values = [f"schedule.warmup={int(facts['warmup_steps'])}"]
    values += [f"schedule.start={facts['base_lr'] / peak}", f"schedule.final={facts['min_lr'] / peak}"]
    schedule = build(OmegaConf.to_container(compose(None, ["+schedule=declip", *values]).schedule))
    (iterations,) = request.case.take(request.call)
    (output,) = request.call.outputs
    rates = [peak * schedule(iteration - 1, int(facts["max_iter"])) for iteration in iterations.tolist()]
    return {output: torch.tensor(rates, dtype=torch.float64)}


def check_groups(case: Case) -> Outcome:
    """The field `expected`: which parameters of a model decay, by `conf/optim/declip_adamw.yaml`."""
    given = take_known(case.config, {"pconfig"}, "config")["pconfig"]
    free = {name: take_known(facts, {"weight_decay"}, name) for name, facts in given.items()}
    assert free == {key: {"weight_decay": 0} for key in FREE}, f"the released configurations free {FREE}, not {free}"
    outcome: dict[str, Pair] = {}
    for label, facts in case.fields["expected"].items():
        lists = take_known(facts, {"no_decay", "decay"}, label)
        found = decays(label, {*lists["no_decay"], *lists["decay"]})
        for key, decayed in (("no_decay", False), ("decay", True)):
            names = sorted(name for name, one in found.items() if one is decayed)
            outcome[f"{label}: {key}"] = Pair(names, sorted(lists[key]))
    return outcome


def decays(label: str, names: set[str]) -> dict[str, bool]:
    """Published name -> whether it decays, of our variant that has these names, as deep as they are.

    Args:
        label: method and tower, `DECLIP, ViT`.
        names: every parameter.
    """
    method, resnet = label.partition(",")[0].strip().lower(), any(".visual.layer" in name for name in names)
    depths = [f"model.text.blocks.depth={_count('(encode_text|text_encoder).transformer.resblocks', names)}"]
    if resnet:
        depths.append(f"model.image.depths={[_count(f'visual.layer{stage}', names) for stage in (1, 2, 3, 4)]}")
    else:
        depths.append(f"model.image.blocks.depth={_count('visual.transformer.resblocks', names)}")
    model = create(f"{method}_{'r50' if resnet else 'vit_b32'}_yfcc", device="meta", overrides=depths)
    parameters = {name: nn.Parameter(one) for name, one in model.named_parameters()}  # frozen ones count too
    optim = OmegaConf.to_container(compose(None, ["+optim=declip_adamw"]).optim)
    groups = read_rules(optim["groups"]).groups(parameters, optim["lr"], optim["weight_decay"])  # type: ignore[index, call-overload]
    decay = {name: bool(group["weight_decay"]) for group in groups for name in group["names"]}
    # weight decays travel as values through the naming table, each as large as its parameter without taking room
    marks = {name: torch.tensor(float(decay[name])).expand(one.shape) for name, one in parameters.items()}
    saved: dict[str, bool] = {}
    for naming in declip.ALL:
        if saved.keys() == names:
            break
        with suppress(CheckpointError):  # a table of other models
            saved = {f"module.{name}": bool(mark[(0,) * mark.ndim]) for name, mark in naming.save(marks).items()}
    return saved


def _count(blocks: str, names: set[str]) -> int:
    """How many numbered blocks there are."""
    found = (re.match(rf"module\.{blocks}\.(?P<number>\d+)\.", name) for name in names)
    return 1 + max((int(one["number"]) for one in found if one), default=-1)
