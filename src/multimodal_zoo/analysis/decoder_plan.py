"""What a multimodal decoder costs: a training step at a context length, and the cache of generation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

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
from multimodal_zoo.analysis.plan import Device
from multimodal_zoo.analysis.setting import Setting
from multimodal_zoo.analysis.shadow import ReadZeros, on_meta, recompute_by
from multimodal_zoo.analysis.tables import Rows, Tables, amount, gflop, html_tables, share_rows, terminal_table
from multimodal_zoo.analysis.thinning import by_depth
from multimodal_zoo.nn.attention import SelfAttention

#: Products of hidden states and head in a step: the losses, the same again in backward, and both gradients.
HEAD_PRODUCTS = 4


@dataclass(frozen=True)
class DecoderPlan:
    """What a decoder costs.

    Attributes:
        name: what the tables call it.
        parts: parameters by part.
        inference: bytes of the weights by format.
        context_length: tokens of a sequence.
        token_flops: operations per token of a forward pass over the context, without the head, two per multiply-add.
        head_flops: operations of the whole vocabulary's logits of a token.
        step_flops: operations of a training step per sequence in which every token counts.
        cache: bytes that one token of one sequence takes in the cache, by the type of its numbers.
        training: bytes per device while training; a visual tokenizer is frozen.
        setting: how it trains.
        device: what one device has, if that is known.
        fewest: devices that each format of the weights and the training take at least; None where any number is too
            few, empty without `device`.
    """

    name: str
    parts: tuple[PartSize, ...]
    inference: Mapping[str, int]
    context_length: int
    token_flops: int
    head_flops: int
    step_flops: int
    cache: Mapping[str, int]
    training: TrainingMemory
    setting: Setting
    device: Device = field(default_factory=lambda: Device())
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
            "inference_bytes": dict(self.inference),
            "context_length": self.context_length,
            "flops": {"token": self.token_flops, "head": self.head_flops},
            "step_flops": self.step_flops,
            "cache_bytes": dict(self.cache),
            "training_bytes": {**training, "total": self.training.total},
            "setting": asdict(self.setting),
            "device": asdict(self.device),
            "fewest_devices": dict(self.fewest),
        }

    def tables(self) -> Tables:
        """(title, rows of label and value), in reading order."""
        parts = share_rows([p.name for p in self.parts], [p.parameters for p in self.parts], self.parameters)
        frozen = self.parameters - sum(part.trainable for part in self.parts)
        setting = ", ".join(f"{key}={value}" for key, value in asdict(self.setting).items())
        length = f"{self.context_length:,} tokens"
        cache = [(f"a sequence of {length}, {kind}", amount(n * self.context_length)) for kind, n in self.cache.items()]
        training = [(key, amount(getattr(self.training, key))) for key in TrainingMemory.__dataclass_fields__]
        return [
            ("parameters", [*parts, ("frozen", f"{frozen:,}"), ("total", f"{self.parameters:,}")]),
            (
                "operations, two per multiply-add",
                [
                    (f"a token, forward, in a context of {length}", gflop(self.token_flops)),
                    ("logits of a token, whole vocabulary", gflop(self.head_flops)),
                    (f"training step of a sequence of {length}", gflop(self.step_flops)),
                    *self._times(),
                ],
            ),
            ("inference, weights", [(kind, amount(size)) for kind, size in self.inference.items()]),
            ("inference, keys and values", cache),
            (f"training, per device: {setting}", [*training, ("total", amount(self.training.total))]),
            *([self._fit()] if self.device.memory else []),
        ]

    def _times(self) -> Rows:
        if not self.device.tflops:
            return []
        seconds = self.device.seconds(self.step_flops)
        return [(f"training step of a sequence at {self.device.tflops:g} TFLOP/s", f"{seconds:.3g} s")]

    def _fit(self) -> tuple[str, Rows]:
        used = f"{amount(int(USABLE * self.device.memory))} of {amount(self.device.memory)} used"
        rows = [(kind, f"{count}" if count else "does not fit") for kind, count in self.fewest.items()]
        return f"fewest devices, {used} on each", rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield terminal_table(self.name, self.tables())

    def _repr_html_(self) -> str:
        return html_tables(self.name, self.tables())


def decoder_plan(
    model: nn.Module, *, name: str, context_length: int, setting: Setting | None = None, device: Device | None = None
) -> DecoderPlan:
    """Plan a multimodal decoder's inference and training.

    Attention is taken to be fused, also where its weights are dropped: what it keeps grows with the tokens. The head
    beside it holds `objective.held_logits` logits, which is little and not counted.

    Args:
        model: called with ids; has a `decoder`. On any device; build it on `meta` to allocate nothing.
        name: what the tables call it.
        context_length: tokens of a sequence.
        setting: how it trains; by default on one device, in float32, one sequence a step.
        device: what one device has, for the number of devices and the times.

    Raises:
        ValueError: a context beyond the decoder's positions.
    """
    setting, device = setting or Setting(batch_size=1), device or Device()
    decoder = model.decoder
    if not 1 <= context_length <= decoder.max_positions:
        raise ValueError(
            f"context_length={context_length}: the decoder has {decoder.max_positions} positions; override "
            "model.decoder.max_positions for more"
        )
    copy = _as_trained(model)
    kept = activation_bytes(copy, lambda batch: (torch.zeros(batch, context_length, dtype=torch.long),), setting)
    inference = inference_bytes(model)
    fewest: dict[str, int | None] = {}
    if device.memory:
        fewest = {kind: math.ceil(size / (USABLE * device.memory)) for kind, size in inference.items()}
        fewest["training"] = fewest_devices(copy, kept, setting, device.memory)
    head = 2 * decoder.width * decoder.vocab_size
    qkv = decoder.blocks.layers[0].attention.qkv
    numbers = 2 * decoder.blocks.depth * qkv.kv_heads * qkv.head_dim
    return DecoderPlan(
        name=name,
        parts=tuple(parts_of(copy)),
        inference=inference,
        context_length=context_length,
        token_flops=_forward(copy, context_length) // context_length,
        head_flops=head,
        step_flops=_step(copy, context_length, setting.checkpoint) + HEAD_PRODUCTS * head * context_length,
        cache={"float32": 4 * numbers, "float16 / bfloat16": 2 * numbers},
        training=training_bytes(copy, kept, setting),
        setting=setting,
        device=device,
        fewest=fewest,
    )


def _as_trained(model: nn.Module) -> nn.Module:
    """A copy that shares the tensors' sizes: fused attention, a frozen visual tokenizer."""
    copy = on_meta(model)
    for part in copy.modules():
        if isinstance(part, SelfAttention):
            part.dropout = 0.0
    if isinstance(tokenizer := getattr(copy, "vision_tokenizer", None), nn.Module):
        tokenizer.requires_grad_(False)
    return copy


def _ids(tokens: int) -> Tensor:
    return torch.zeros(1, tokens, dtype=torch.long, device="meta")


def _forward(model: nn.Module, tokens: int) -> int:
    """Operations of hidden states."""

    def measure(given: nn.Module) -> int:
        """Those of a copy with the blocks given."""
        with torch.no_grad(), ReadZeros(), FlopCounterMode(display=False) as counter:
            on_meta(given).eval()(_ids(tokens))
        return int(counter.get_total_flops())

    return by_depth(model, measure)


def _step(model: nn.Module, tokens: int, checkpoint: str) -> int:
    """Operations of hidden states and of their gradients."""

    def measure(given: nn.Module) -> int:
        """Those of a copy with the blocks given."""
        ghost = on_meta(given).train()
        recompute_by(ghost, checkpoint)
        with ReadZeros(), FlopCounterMode(display=False) as counter:
            hidden = ghost(_ids(tokens))
            hidden.backward(torch.empty_like(hidden))
        return int(counter.get_total_flops())

    return by_depth(model, measure)
