"""What a model of pictures alone costs: a detector, a masked student, a visual tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from multimodal_zoo.analysis.costs import Costs, Device, shared_costs
from multimodal_zoo.analysis.flops import forward_flops, trained_flops
from multimodal_zoo.analysis.memory import activation_bytes
from multimodal_zoo.analysis.samples import Sample
from multimodal_zoo.analysis.setting import Setting
from multimodal_zoo.analysis.shadow import on_meta
from multimodal_zoo.analysis.tables import Rows, gflop
from multimodal_zoo.analysis.thinning import by_depth


@dataclass(frozen=True, kw_only=True)
class SamplePlan(Costs):
    """What a model of pictures costs.

    Attributes:
        sample: what a sample is.
        sample_flops: operations of a sample, forward, two per multiply-add.
        step_flops: operations of a sample of a training step, forward and backward, without the objective.
    """

    sample: str
    sample_flops: int
    step_flops: int

    def figures(self) -> dict[str, Any]:
        """Operations."""
        return {"sample": self.sample, "flops": {"sample": self.sample_flops}, "step_flops": self.step_flops}

    def operations(self) -> Rows:
        """Of a sample, alone and in a training step."""
        rows = [(self.sample, gflop(self.sample_flops)), ("the same in a training step", gflop(self.step_flops))]
        if self.device.tflops:
            seconds = self.device.seconds(self.step_flops)
            rows.append((f"the same in a training step at {self.device.tflops:g} TFLOP/s", f"{seconds:.3g} s"))
        return rows


def sample_plan(
    model: nn.Module, sample: Sample, *, name: str, setting: Setting | None = None, device: Device | None = None
) -> SamplePlan:
    """Plan a model's inference and training.

    Args:
        model: on any device; build it on `meta` to allocate nothing.
        sample: what it is run on (`samples.sample_of`).
        name: what the tables call it.
        setting: how it trains; by default on one device, in float32, one sample a step.
        device: what one device has, for the number of devices and the times.
    """
    setting, device = setting or Setting(batch_size=1), device or Device()

    def forward(given: nn.Module) -> int:
        """Operations of a copy with the blocks given."""
        ghost = on_meta(given).eval()
        with torch.device("meta"):
            inputs = sample.inputs(1)
        return forward_flops(lambda: ghost(*inputs))

    def step(given: nn.Module) -> int:
        """Likewise, with the gradients; batches of two, since a norm may want several values."""
        with torch.device("meta"):
            inputs = sample.inputs(2)
        return trained_flops(given, inputs, setting.checkpoint)

    return SamplePlan(
        **shared_costs(name, model, activation_bytes(sample.runs, sample.inputs, setting), setting, device),
        sample=sample.name,
        sample_flops=by_depth(sample.runs, forward),
        step_flops=by_depth(sample.runs, step) // 2,
    )
