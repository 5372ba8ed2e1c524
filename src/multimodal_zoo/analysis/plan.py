"""`mmzoo plan`: what a variant costs under a strategy, before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from torch import Tensor, nn

from multimodal_zoo.analysis.flops import full_image_flops, full_text_flops, image_flops, step_flops, text_flops
from multimodal_zoo.analysis.formats import inference_bytes
from multimodal_zoo.analysis.memory import (
    USABLE,
    PartSize,
    TrainingMemory,
    activation_bytes,
    fewest_devices,
    parts_of,
    training_bytes,
)
from multimodal_zoo.analysis.setting import Setting
from multimodal_zoo.analysis.tables import Rows, Tables, amount, gflop, html_tables, share_rows, terminal_table


@dataclass(frozen=True)
class Device:
    """What one device has; 0 where it is not known.

    Attributes:
        memory: bytes.
        tflops: 10^12 operations per second that it sustains, at the precision in question.
    """

    memory: int = 0
    tflops: float = 0.0

    def seconds(self, operations: int) -> float:
        """Time that operations take."""
        return operations / (self.tflops * 1e12)


@dataclass(frozen=True)
class Plan:
    """What a model costs.

    Attributes:
        name: what the tables call it.
        parts: parameters by part.
        inference: bytes of the weights by format.
        image_flops: operations per image embedding, forward, two per multiply-add.
        text_flops: operations per text embedding of `text_length` tokens, forward.
        full_image_flops: the same with the features of all tokens, as profiles are published.
        full_text_flops: likewise for a text.
        image_size: side of the image, in pixels.
        text_length: tokens of a text.
        step_flops: operations per image-text pair of a training step, forward and backward.
        training: bytes per device while training.
        setting: how it trains.
        device: what one device has, if that is known.
        fewest: devices that each format of the weights and the training take at least; None where any number is too
            few, empty without `device`.
    """

    name: str
    parts: tuple[PartSize, ...]
    inference: Mapping[str, int]
    image_flops: int
    text_flops: int
    full_image_flops: int
    full_text_flops: int
    image_size: int
    text_length: int
    step_flops: int
    training: TrainingMemory
    setting: Setting
    device: Device = field(default_factory=lambda: Device())
    fewest: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """All weights."""
        return sum(part.parameters for part in self.parts)

    @property
    def pair_flops(self) -> int:
        """Operations per image-text pair, forward."""
        return self.image_flops + self.text_flops

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        training = {key: getattr(self.training, key) for key in TrainingMemory.__dataclass_fields__}
        return {
            "name": self.name,
            "parameters": self.parameters,
            "parts": {part.name: part.parameters for part in self.parts},
            "inference_bytes": dict(self.inference),
            "flops": {"image": self.image_flops, "text": self.text_flops, "pair": self.pair_flops},
            "flops_all_tokens": {"image": self.full_image_flops, "text": self.full_text_flops},
            "step_flops": self.step_flops,
            "training_bytes": {**training, "total": self.training.total},
            "setting": asdict(self.setting),
            "device": asdict(self.device),
            "fewest_devices": dict(self.fewest),
        }

    def tables(self) -> Tables:
        """(title, rows of label and value), in reading order."""
        side = self.image_size
        parts = share_rows([p.name for p in self.parts], [p.parameters for p in self.parts], self.parameters)
        frozen = self.parameters - sum(part.trainable for part in self.parts)
        setting = ", ".join(f"{key}={value}" for key, value in asdict(self.setting).items())
        return [
            ("parameters", [*parts, ("frozen", f"{frozen:,}"), ("total", f"{self.parameters:,}")]),
            (
                "operations, two per multiply-add",
                [
                    (f"embedding of an image of {side} x {side} pixels", gflop(self.image_flops)),
                    (f"embedding of a text of {self.text_length} tokens", gflop(self.text_flops)),
                    ("image with the features of all tokens", gflop(self.full_image_flops)),
                    ("text with the features of all tokens", gflop(self.full_text_flops)),
                    ("pair of a training step", gflop(self.step_flops)),
                    *self._times(),
                ],
            ),
            ("inference, weights", [(kind, amount(size)) for kind, size in self.inference.items()]),
            (
                f"training, per device: {setting}",
                [
                    *((key, amount(getattr(self.training, key))) for key in TrainingMemory.__dataclass_fields__),
                    ("total", amount(self.training.total)),
                ],
            ),
            *([self._fit()] if self.device.memory else []),
        ]

    def _times(self) -> Rows:
        if not self.device.tflops:
            return []
        at = f"at {self.device.tflops:g} TFLOP/s"
        return [
            (f"image embedding {at}", f"{1e3 * self.device.seconds(self.image_flops):.3g} ms"),
            (f"pair of a training step {at}", f"{1e3 * self.device.seconds(self.step_flops):.3g} ms"),
        ]

    def _fit(self) -> tuple[str, Rows]:
        used = f"{amount(int(USABLE * self.device.memory))} of {amount(self.device.memory)} used"
        rows = [(kind, f"{count}" if count else "does not fit") for kind, count in self.fewest.items()]
        return f"fewest devices, {used} on each", rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield terminal_table(self.name, self.tables())

    def _repr_html_(self) -> str:
        return html_tables(self.name, self.tables())


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
    inference = inference_bytes(model)
    fewest: dict[str, int | None] = {}
    if device.memory:
        fewest = {kind: math.ceil(size / (USABLE * device.memory)) for kind, size in inference.items()}
        fewest["training"] = fewest_devices(model, kept, setting, device.memory)
    return Plan(
        name=name,
        parts=tuple(parts_of(model)),
        inference=inference,
        image_flops=image_flops(model, image_size, image_size),
        text_flops=text_flops(model, text_length),
        full_image_flops=full_image_flops(model, image_size, image_size),
        full_text_flops=full_text_flops(model, text_length),
        image_size=image_size,
        text_length=text_length,
        step_flops=step_flops(model, image_size, text_length, setting.checkpoint),
        training=training_bytes(model, kept, setting),
        setting=setting,
        device=device,
        fewest=fewest,
    )
