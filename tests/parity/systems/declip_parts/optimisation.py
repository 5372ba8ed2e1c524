"""DeCLIP's optimisation: the learning rate of an iteration, and which parameters decay."""

from __future__ import annotations

import re

import torch
from harness.run import Outcome, Request
from harness.words import take_known
from omegaconf import OmegaConf

from multimodal_zoo.config import compose
from multimodal_zoo.registry import build

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
