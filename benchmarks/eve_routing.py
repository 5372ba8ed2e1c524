"""A decoupled block of EVE v2: each token with its own weights, against both sets of weights on all tokens.

    python benchmarks/eve_routing.py          # one thread: about two minutes

A block of Qwen2's kind, 512 wide, eight heads over two key heads, MLP of 1,408, random weights, float32, forward and
backward, gradients of tokens and weights included. The rival computes norms, projections and MLP of both kinds on all
tokens and adds `(1 - m) text + m vision` with the 0/1 mask m, as the published code does; attention, rotary positions
and kernels are the same on both sides. "plain" is the block with one set of weights, the least that can be
computed. Outputs and gradients of both must agree, relative to the largest entry of each.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _report import alternate, ratio, record, use_threads
from torch import Tensor

from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.decoupled import DecoupledBlock
from multimodal_zoo.nn.masks import Causal
from multimodal_zoo.nn.rotary import Rotation
from multimodal_zoo.nn.route import Route
from multimodal_zoo.registry import build

CONFIG = {
    "model_type": "qwen2",
    "vocab_size": 8,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
TOLERANCE = 1e-5
#: Where pictures stand: first token and number of tokens of each.
MIXES: dict[str, tuple[int, tuple[tuple[int, int], ...]]] = {
    "50 % pictures": (1024, ((16, 512),)),
    "80 % pictures": (1024, ((16, 819),)),
    "a conversation, 36 x 36 cells": (2000, ((35, 1 + 36 * 37),)),
    "four documents, three pictures": (2000, ((35, 1 + 18 * 19), (560, 1 + 24 * 19), (1300, 1 + 12 * 13))),
}


def decoupled() -> tuple[DecoupledBlock, torch.nn.Module]:
    """A block whose two kinds of weights differ, and its rotary positions."""
    torch.manual_seed(0)
    node = node_from_hf(CONFIG)
    block = build({"type": "decoupled_block", "block": node["blocks"]["block"]}, path="block")
    with torch.no_grad():
        for weight in block.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.02)
    return block, build(node["rotary"], path="rotary")


def flags(tokens: int, pictures: tuple[tuple[int, int], ...]) -> Tensor:
    """Bool (1, tokens)."""
    vision = torch.zeros(1, tokens, dtype=torch.bool)
    for start, count in pictures:
        vision[:, start : start + count] = True
    return vision


def blended(block: DecoupledBlock, tokens: Tensor, mask: Tensor, rotation: Rotation) -> Tensor:
    """Everything twice, on all tokens; `mask` is (1, tokens, 1), 1.0 at pictures."""

    def both(name: str, states: Tensor) -> Tensor:
        return (1 - mask) * getattr(block.text, name)(states) + mask * block.vision[name](states)

    text, vision = block.text.attention, block.vision["attention"]
    normed = both("norm_1", tokens)
    by_head = mask[:, None]
    pairs = zip(text.qkv(normed), vision.qkv(normed), strict=True)
    query, key, value = ((1 - by_head) * one + by_head * other for one, other in pairs)
    mixed = attend(rotation(query), rotation(key), value, mask=Causal()).transpose(1, 2).flatten(2)
    tokens = tokens + (1 - mask) * text.out(mixed) + mask * vision.out(mixed)
    return tokens + both("mlp", both("norm_2", tokens))


def step(call: Callable[[Tensor], Tensor], block: DecoupledBlock, tokens: Tensor) -> list[Tensor]:
    """Output, and gradients of the tokens and of all weights."""
    leaf = tokens.detach().requires_grad_()
    output = call(leaf)
    wanted = [leaf, *block.parameters()]
    return [output.detach(), *torch.autograd.grad(output.square().mean(), wanted, allow_unused=True)]


def measure(name: str, repeats: int) -> list[dict[str, Any]]:
    """One line for each way of computing a mix."""
    block, rotary = decoupled()
    length, pictures = MIXES[name]
    vision, tokens, rotation = flags(length, pictures), torch.randn(1, length, 512), rotary(torch.arange(length))
    given = {"mask": Causal(), "rotation": rotation}
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "ours": lambda states: block(states, **given, route=Route.of(vision)),
        "both on all tokens": lambda states: blended(block, states, vision[..., None].float(), rotation),
        "plain": lambda states: block.text(states, **given),
    }
    ours, theirs = (step(calls[side], block, tokens) for side in list(calls)[:2])
    gaps = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)]
    assert max(gaps) < TOLERANCE, f"{name}: output and gradients differ by {gaps}"
    times = alternate({side: partial(step, call, block, tokens) for side, call in calls.items()}, repeats)
    return [
        {
            "tokens": f"{length}, {name}" if side == "ours" else "",
            "of pictures": f"{float(vision.float().mean()):.0%}",
            "side": side,
            "milliseconds": 1000 * statistics.median(spent),
            "these / ours": ratio(spent, times["ours"]),
            "output differs by": gaps[0] if side == "both on all tokens" else 0.0,
            "gradients differ by": max(gaps[1:]) if side == "both on all tokens" else 0.0,
        }
        for side, spent in times.items()
    ]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one repeat of one mix; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    names = list(MIXES)[:1] if options.quick else list(MIXES)
    rows = [row for name in names for row in measure(name, 1 if options.quick else options.repeats)]
    record("eve_routing", rows, "python benchmarks/eve_routing.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
