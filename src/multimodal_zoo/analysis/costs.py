"""What every plan holds and shows, whatever the model: parameters, memory, times on a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from torch import nn

from multimodal_zoo.analysis.formats import inference_bytes
from multimodal_zoo.analysis.memory import (
    USABLE,
    PartSize,
    TrainingMemory,
    fewest_devices,
    parts_of,
    training_bytes,
)
from multimodal_zoo.analysis.setting import Setting
from multimodal_zoo.analysis.tables import Rows, Tables, amount, html_tables, share_rows, terminal_table


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


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a model costs; a plan adds the operations of its kind of model.

    Attributes:
        name: what the tables call it.
        parts: parameters by part.
        inference: bytes of the weights by format.
        training: bytes per device while training.
        setting: how it trains.
        device: what one device has, if that is known.
        fewest: devices that each format of the weights and the training take at least; None where any number is too
            few, empty without `device`.
    """

    name: str
    parts: tuple[PartSize, ...]
    inference: Mapping[str, int]
    training: TrainingMemory
    setting: Setting
    device: Device = field(default_factory=Device)
    fewest: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """All weights."""
        return sum(part.parameters for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        training = {key: getattr(self.training, key) for key in TrainingMemory.__dataclass_fields__}
        return {
            "name": self.name,
            "parameters": self.parameters,
            "parts": {part.name: part.parameters for part in self.parts},
            "trained": {part.name: part.trainable for part in self.parts},
            "inference_bytes": dict(self.inference),
            **self.figures(),
            "training_bytes": {**training, "total": self.training.total},
            "setting": asdict(self.setting),
            "device": asdict(self.device),
            "fewest_devices": dict(self.fewest),
        }

    def tables(self) -> Tables:
        """(title, rows of label and value), in reading order."""
        parts = share_rows([p.name for p in self.parts], [p.parameters for p in self.parts], self.parameters)
        trained = sum(part.trainable for part in self.parts)
        sums = share_rows(["trained", "frozen"], [trained, self.parameters - trained], self.parameters)
        setting = ", ".join(f"{key}={value}" for key, value in asdict(self.setting).items())
        training = [(key, amount(getattr(self.training, key))) for key in TrainingMemory.__dataclass_fields__]
        return [
            ("parameters", [*parts, *sums, ("total", f"{self.parameters:,}")]),
            ("operations, two per multiply-add", self.operations()),
            ("inference, weights", [(kind, amount(size)) for kind, size in self.inference.items()]),
            *self.further(),
            (f"training, per device: {setting}", [*training, ("total", amount(self.training.total))]),
            *([self._fit()] if self.device.memory else []),
        ]

    def figures(self) -> dict[str, Any]:
        """What the plan adds to `as_dict`."""
        return {}

    def operations(self) -> Rows:
        """Rows of operations, and of the times that they take on the device."""
        return []

    def further(self) -> Tables:
        """Tables behind the weights' memory."""
        return []

    def _fit(self) -> tuple[str, Rows]:
        used = f"{amount(int(USABLE * self.device.memory))} of {amount(self.device.memory)} used"
        rows = [(kind, f"{count}" if count else "does not fit") for kind, count in self.fewest.items()]
        return f"fewest devices, {used} on each", rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield terminal_table(self.name, self.tables())

    def _repr_html_(self) -> str:
        return html_tables(self.name, self.tables())


def shared_costs(name: str, model: nn.Module, kept: int, setting: Setting, device: Device) -> dict[str, Any]:
    """The fields of `Costs`.

    Args:
        name: what the tables call it.
        model: as it trains.
        kept: bytes that it keeps for the backward pass.
        setting: how it trains.
        device: what one device has.
    """
    inference = inference_bytes(model)
    fewest: dict[str, int | None] = {}
    if device.memory:
        fewest = {kind: math.ceil(size / (USABLE * device.memory)) for kind, size in inference.items()}
        fewest["training"] = fewest_devices(model, kept, setting, device.memory)
    return {
        "name": name,
        "parts": tuple(parts_of(model)),
        "inference": inference,
        "training": training_bytes(model, kept, setting),
        "setting": setting,
        "device": device,
        "fewest": fewest,
    }
