"""`mmzoo plan`: what a variant costs under a strategy, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.analysis.costs import Costs, Device, shared_costs
from multimodal_zoo.analysis.flops import full_image_flops, full_text_flops, image_flops, step_flops, text_flops
from multimodal_zoo.analysis.memory import activation_bytes
from multimodal_zoo.analysis.setting import Setting
from multimodal_zoo.analysis.tables import Rows, gflop


@dataclass(frozen=True, kw_only=True)
class Plan(Costs):
    """What a dual encoder costs.

    Attributes:
        image_flops: operations per image embedding, forward, two per multiply-add.
        text_flops: operations per text embedding of `text_length` tokens, forward.
        full_image_flops: the same with the features of all tokens, as profiles are published.
        full_text_flops: likewise for a text.
        image_size: side of the image, in pixels.
        text_length: tokens of a text.
        step_flops: operations per image-text pair of a training step, forward and backward.
    """

    image_flops: int
    text_flops: int
    full_image_flops: int
    full_text_flops: int
    image_size: int
    text_length: int
    step_flops: int

    @property
    def pair_flops(self) -> int:
        """Operations per image-text pair, forward."""
        return self.image_flops + self.text_flops

    def figures(self) -> dict[str, Any]:
        """Operations."""
        return {
            "flops": {"image": self.image_flops, "text": self.text_flops, "pair": self.pair_flops},
            "flops_all_tokens": {"image": self.full_image_flops, "text": self.full_text_flops},
            "step_flops": self.step_flops,
        }

    def operations(self) -> Rows:
        """Of embeddings and of a training step."""
        side = self.image_size
        return [
            (f"embedding of an image of {side} x {side} pixels", gflop(self.image_flops)),
            (f"embedding of a text of {self.text_length} tokens", gflop(self.text_flops)),
            ("image with the features of all tokens", gflop(self.full_image_flops)),
            ("text with the features of all tokens", gflop(self.full_text_flops)),
            ("pair of a training step", gflop(self.step_flops)),
            *self._times(),
        ]

    def _times(self) -> Rows:
        if not self.device.tflops:
            return []
        at = f"at {self.device.tflops:g} TFLOP/s"
        return [
            (f"image embedding {at}", f"{1e3 * self.device.seconds(self.image_flops):.3g} ms"),
            (f"pair of a training step {at}", f"{1e3 * self.device.seconds(self.step_flops):.3g} ms"),
        ]


def plan(
    model: nn.Module,
    *,
    name: str,
    image_size: int,
    text_length: int,
    setting: Setting | None = None,
    device: Device | None = None,
) -> Plan:
    """Plan a dual encoder's inference and training.

    Args:
        model: on any device; build it on `meta` to allocate nothing.
        name: what the tables call it.
        image_size: side of the images, in pixels.
        text_length: tokens of a text.
        setting: how it trains; by default on one device, in float32, 64 pairs a step.
        device: what one device has, for the number of devices and the times.
    """
    setting, device = setting or Setting(), device or Device()

    def inputs(batch: int) -> tuple[Tensor, Tensor]:
        """Images and ids of the shapes planned for."""
        return torch.empty(batch, 3, image_size, image_size), torch.zeros(batch, text_length, dtype=torch.long)

    kept = activation_bytes(model, inputs, setting)
    return Plan(
        **shared_costs(name, model, kept, setting, device),
        image_flops=image_flops(model, image_size, image_size),
        text_flops=text_flops(model, text_length),
        full_image_flops=full_image_flops(model, image_size, image_size),
        full_text_flops=full_text_flops(model, text_length),
        image_size=image_size,
        text_length=text_length,
        step_flops=step_flops(model, image_size, text_length, setting.checkpoint),
    )
