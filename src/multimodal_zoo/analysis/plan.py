"""`mmzoo plan`: what a variant costs under a strategy, before anything is allocated."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from torch import Tensor, nn

from multimodal_zoo.analysis.activations import activations
from multimodal_zoo.analysis.flops import image_flops, text_flops
from multimodal_zoo.analysis.memory import (
    PRECISIONS,
    PartSize,
    TrainingMemory,
    _known,
    inference_bytes,
    parts_of,
    training_bytes,
)

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Plan:
    """What a model costs.

    Attributes:
        name: what the tables call it.
        parts: parameters by part.
        inference: bytes of the weights by format.
        image_flops: operations per image, forward, two per multiply-add.
        text_flops: operations per text of `text_length` tokens, forward.
        image_size: side of the image, in pixels.
        text_length: tokens of a text.
        training: bytes per device while training.
        setting: how it trains: strategy, devices, batch size per device, precision, checkpointing, optimiser.
    """

    name: str
    parts: tuple[PartSize, ...]
    inference: Mapping[str, int]
    image_flops: int
    text_flops: int
    image_size: int
    text_length: int
    training: TrainingMemory
    setting: Mapping[str, Any]

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
            "training_bytes": {**training, "total": self.training.total},
            "setting": dict(self.setting),
        }

    def tables(self) -> list[tuple[str, Rows]]:
        """(title, rows of label and value), in reading order."""
        whole = max(self.parameters, 1)
        parts = [(p.name, f"{p.parameters:,} ({100 * p.parameters / whole:.1f} %)") for p in self.parts]
        frozen = self.parameters - sum(part.trainable for part in self.parts)
        setting = ", ".join(f"{key} {value}" for key, value in self.setting.items())
        return [
            ("parameters", [*parts, ("frozen", f"{frozen:,}"), ("total", f"{self.parameters:,}")]),
            (
                "forward pass, two operations per multiply-add",
                [
                    (f"image of {self.image_size} x {self.image_size}", f"{self.image_flops / 1e9:.2f} GFLOP"),
                    (f"text of {self.text_length} tokens", f"{self.text_flops / 1e9:.2f} GFLOP"),
                    ("pair, training (forward and backward)", f"{3 * self.pair_flops / 1e9:.2f} GFLOP"),
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
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts: list[RenderableType] = []
        for title, rows in self.tables():
            table = Table(title=f"{self.name}: {title}", title_justify="left", show_header=False)
            table.add_column(style="bold")
            table.add_column(justify="right")
            for label, value in rows:
                table.add_row(label, value)
            parts.append(table)
        yield Group(*parts)

    def _repr_html_(self) -> str:
        return "".join(
            f"<table><caption><b>{html.escape(f'{self.name}: {title}')}</b></caption>"
            + "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
            + "</table>"
            for title, rows in self.tables()
        )


def amount(size: int) -> str:
    """Bytes for people, in powers of 1000."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.2f} {unit}"
    return f"{size} B"


def plan(
    model: nn.Module,
    *,
    name: str,
    image_size: int,
    text_length: int,
    batch_size: int = 64,
    devices: int = 1,
    strategy: str = "single",
    precision: str = "32-true",
    checkpointing: bool = False,
    optimizer: str = "adamw",
) -> Plan:
    """Plan a dual encoder's inference and training.

    Args:
        model: on any device; build it on `meta` to allocate nothing.
        name: what the tables call it.
        image_size: side of the images, in pixels.
        text_length: tokens of a text.
        batch_size: pairs per device and step.
        devices: number of devices.
        strategy: `single`, `ddp` or `fsdp`.
        precision: Lightning's name, as in `trainer.precision`.
        checkpointing: whether each block is computed again in the backward pass.
        optimizer: `adamw`, `lamb`, `momentum`, ...

    Raises:
        ValueError: an unknown strategy, precision or optimizer, with the known ones.
    """
    _known("precision", precision, PRECISIONS)

    def inputs(size: int) -> tuple[Tensor, Tensor]:
        return torch.empty(size, 3, image_size, image_size), torch.zeros(size, text_length, dtype=torch.long)

    size, autocast = PRECISIONS[precision]
    kept = activations(model, inputs, checkpointing=checkpointing, autocast=autocast).at(batch_size)
    if size == 2:
        kept //= 2  # everything that is kept is a tensor of half precision
    setting = {
        "strategy": strategy,
        "devices": devices,
        "batch size": batch_size,
        "precision": precision,
        "checkpointing": "block" if checkpointing else "none",
        "optimizer": optimizer,
    }
    return Plan(
        name=name,
        parts=tuple(parts_of(model)),
        inference=inference_bytes(model),
        image_flops=image_flops(model, image_size, image_size),
        text_flops=text_flops(model, text_length),
        image_size=image_size,
        text_length=text_length,
        training=training_bytes(
            model, activations=kept, strategy=strategy, devices=devices, precision=precision, optimizer=optimizer
        ),
        setting=setting,
    )
