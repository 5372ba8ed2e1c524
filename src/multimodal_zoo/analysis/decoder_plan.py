"""What a multimodal decoder costs: a training step at a context length, and the cache of generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.analysis.costs import Costs, Device, shared_costs
from multimodal_zoo.analysis.flops import forward_flops, trained_flops
from multimodal_zoo.analysis.memory import activation_bytes
from multimodal_zoo.analysis.setting import Setting
from multimodal_zoo.analysis.shadow import on_meta
from multimodal_zoo.analysis.tables import Rows, Tables, amount, gflop
from multimodal_zoo.analysis.thinning import by_depth
from multimodal_zoo.nn.attention import SelfAttention

#: Parts that read what a decoder gives: their gradients do not pass through it.
BEHIND = ("regression_head", "visual_decoder", "vision_tokenizer")


@dataclass(frozen=True, kw_only=True)
class DecoderPlan(Costs):
    """What a decoder costs; a visual tokenizer beside it is frozen while it trains.

    Attributes:
        context_length: tokens of a sequence.
        token_flops: operations per token of a forward pass over the context, without the head, two per multiply-add.
        head_flops: operations of the whole vocabulary's logits of a token.
        step_flops: operations of a training step per sequence in which every token counts.
        cache: bytes that one token of one sequence takes in the cache, by the type of its numbers.
        shared_by: devices that share each block's matrices in inference.
        shared: bytes of the weights on each of these, by the type of its numbers.
    """

    context_length: int
    token_flops: int
    head_flops: int
    step_flops: int
    cache: Mapping[str, int]
    shared_by: int
    shared: Mapping[str, int]

    def figures(self) -> dict[str, Any]:
        """Operations, and the cache."""
        return {
            "context_length": self.context_length,
            "flops": {"token": self.token_flops, "head": self.head_flops},
            "step_flops": self.step_flops,
            "cache_bytes": dict(self.cache),
            "tensor_parallel": {"devices": self.shared_by, "weights": dict(self.shared)},
        }

    def operations(self) -> Rows:
        """Of a token, its logits and a training step."""
        length = f"{self.context_length:,} tokens"
        rows = [
            (f"a token, forward, in a context of {length}", gflop(self.token_flops)),
            ("logits of a token, whole vocabulary", gflop(self.head_flops)),
            (f"training step of a sequence of {length}", gflop(self.step_flops)),
        ]
        if self.device.tflops:
            seconds = self.device.seconds(self.step_flops)
            rows.append((f"training step of a sequence at {self.device.tflops:g} TFLOP/s", f"{seconds:.3g} s"))
        return rows

    def further(self) -> Tables:
        """The cache of a whole sequence."""
        length = f"{self.context_length:,} tokens"
        rows = [(f"a sequence of {length}, {kind}", amount(n * self.context_length)) for kind, n in self.cache.items()]
        tables = [("inference, keys and values", rows)]
        if self.shared_by > 1:
            parts = [(f"weights, {kind}", amount(size)) for kind, size in self.shared.items()]
            parts += [
                (f"keys and values of {label}", amount(-(-size // self.shared_by)))
                for label, size in ((f"{length}, {kind}", n * self.context_length) for kind, n in self.cache.items())
            ]
            tables.append((f"inference, each of {self.shared_by} devices in tensor parallel", parts))
        return tables


def decoder_plan(
    model: nn.Module,
    *,
    name: str,
    context_length: int,
    setting: Setting | None = None,
    device: Device | None = None,
    shared_by: int = 1,
) -> DecoderPlan:
    """Plan a multimodal decoder's inference and training.

    Attention is taken to be fused, also where its weights are dropped: what it keeps grows with the tokens. The head
    beside it holds `objective.held_logits` logits, which is little and not counted; nor is what an image encoder
    computes and keeps for its pictures. Where a part in front of the decoder trains, gradients reach it through all
    blocks, frozen ones included.

    Args:
        model: called with ids; has a `decoder`. On any device; build it on `meta` to allocate nothing. What trains
            says `requires_grad` (`nn.frozen.freeze`).
        name: what the tables call it.
        context_length: tokens of a sequence.
        setting: how it trains; by default on one device, in float32, one sequence a step.
        device: what one device has, for the number of devices and the times.
        shared_by: devices that share each block's matrices in inference (`inference.tensor_parallel`).

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
    copy = as_trained(model)
    kept = activation_bytes(copy, lambda batch: (torch.zeros(batch, context_length, dtype=torch.long),), setting)
    head = 2 * decoder.width * decoder.vocab_size
    qkv = decoder.blocks.layers[0].attention.qkv
    numbers = 2 * decoder.blocks.depth * qkv.kv_heads * qkv.head_dim
    return DecoderPlan(
        **shared_costs(name, copy, kept, setting, device),
        context_length=context_length,
        token_flops=_forward(copy, context_length) // context_length,
        head_flops=head,
        step_flops=_step(copy, context_length, setting.checkpoint) + _head_products(copy) * head * context_length,
        cache={"float32": 4 * numbers, "float16 / bfloat16": 2 * numbers},
        shared_by=shared_by,
        shared={kind: _shared(model, size, shared_by) for kind, size in (("float32", 4), ("float16 / bfloat16", 2))},
    )


def _shared(model: nn.Module, size: int, devices: int) -> int:
    """Bytes of weights on each of the devices that share the decoder's blocks; norms and all else are on each."""
    whole = sum(parameter.numel() for parameter in model.parameters())
    split = sum(p.numel() for p in model.decoder.blocks.parameters() if p.ndim == 2)
    return size * (whole - split + -(-split // devices))


def as_trained(model: nn.Module) -> nn.Module:
    """A copy on meta as a decoder trains: fused attention, a frozen visual tokenizer, gradients for parts in front."""
    copy = on_meta(model)
    for part in copy.modules():
        if isinstance(part, SelfAttention):
            part.dropout = 0.0
    if isinstance(tokenizer := getattr(copy, "vision_tokenizer", None), nn.Module):
        tokenizer.requires_grad_(False)
    if _trains_in_front(copy):
        copy.decoder.token_embedding.register_forward_hook(_as_pictures)
    return copy


def _trains_in_front(model: nn.Module) -> bool:
    """Whether anything trains whose gradient comes through the decoder."""
    behind = ("decoder", *BEHIND)
    return any(p.requires_grad for name, p in model.named_parameters() if name.split(".")[0] not in behind)


def _as_pictures(embedding: nn.Module, arguments: object, result: Tensor) -> Tensor:
    """Embeddings that need a gradient, as those of pictures do whose encoder or projection trains."""
    return result if result.requires_grad else result.detach().requires_grad_()


def _head_products(model: nn.Module) -> int:
    """Products of hidden states and head in a step: the losses, the same again in backward, and one a gradient."""
    decoder = model.decoder
    head = int(decoder.head_weight.requires_grad)
    inside = [p for p in decoder.parameters() if p is not decoder.head_weight or decoder.output is None]
    hidden = int(_trains_in_front(model) or any(p.requires_grad for p in inside))
    return 1 + bool(head + hidden) + head + hidden


def _ids(tokens: int) -> Tensor:
    return torch.zeros(1, tokens, dtype=torch.long, device="meta")


def _forward(model: nn.Module, tokens: int) -> int:
    """Operations of hidden states."""

    def measure(given: nn.Module) -> int:
        """Those of a copy with the blocks given."""
        ghost = on_meta(given).eval()
        return forward_flops(lambda: ghost(_ids(tokens)))

    return by_depth(model, measure)


def _step(model: nn.Module, tokens: int, checkpoint: str) -> int:
    """Operations of hidden states and of their gradients."""
    return by_depth(model, lambda given: trained_flops(given, (_ids(tokens),), checkpoint))
