"""Memory of Emu's training step: the output layer at words that count and the regression head at embeddings that do.

    python benchmarks/emu_loss_memory.py        # one thread: about a minute of processor time

Emu's vocabulary of 32,004 over a small decoder: 6 blocks, 256 wide, recomputed in the backward pass but for their
attention; random weights, float32. One row of 1,024 tokens with four pictures of 32 embeddings each, which are given,
so that the image encoder does not count. Both losses, the last target of each picture being the embedding of `[/IMG]`.

- "ours": the objective `next_element`: logits of 2^20 numbers at a time (4 MiB), the regression head at places that
  count.
- "all logits": the published forward: logits of all tokens in float32 and the states of all layers, with the regression
  head behind the last ones of the same places.

Memory is the most that a process of its own holds during a step above what it holds when weights and gradients exist,
with MALLOC_MMAP_THRESHOLD_=65536, which makes glibc hand back what is freed. Losses and the norms of all gradients must
agree.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _report import _status, record, seconds, use_threads
from torch import Tensor, nn

from multimodal_zoo.checkpoints.tables.causal_decoder_config import node_from_hf
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.encoders.outputs import ImageFeatures
from multimodal_zoo.objectives.next_element import NextElement
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch
from multimodal_zoo.registry import build

SIDES = ("ours", "all logits")
DEPTH, WIDTH, VOCAB, COUNT, PICTURES = 6, 256, 32004, 32, 4
OPEN, CLOSE, IMAGE = 32001, 32002, 32003
HELD = 2**20
TOLERANCE = 1e-4


class NoPictures(nn.Module):
    """Stands in the image encoder's place: the embeddings of pictures are given."""

    width, image_size = WIDTH, 8

    def forward(self, images: Tensor) -> ImageFeatures:
        """Never called."""
        raise AssertionError(f"{len(images)} pictures to encode; none is part of the measurement")


def model_of() -> Emu:
    """The model."""
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 704, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
    node = node_from_hf({"model_type": "llama", "vocab_size": VOCAB, "rms_norm_eps": 1e-6, **sizes})
    node["blocks"]["checkpoint"] = "around_attention"
    connector = build({"type": "pooled_tokens", "width": WIDTH}, path="connector")
    return Emu(build(node, path="decoder"), NoPictures(), connector).train()


def batch_of(tokens: int) -> VisualTokenBatch:
    """One row; its pictures stand evenly among the words."""
    torch.manual_seed(1)
    ids = torch.randint(3, 32000, (1, tokens))
    vision = torch.zeros(1, tokens, dtype=torch.bool)
    for number in range(PICTURES):
        start = number * tokens // PICTURES + 2
        ids[0, start], ids[0, start + COUNT + 1] = OPEN, CLOSE
        vision[0, start + 1 : start + COUNT + 1] = True
    ids[vision] = IMAGE
    weights = (ids < 32000).float()
    weights[:, 0] = 0
    positions = torch.arange(tokens)[None]
    regression = (vision | (ids == CLOSE)).float()
    visual = torch.randn(COUNT * PICTURES, WIDTH)
    return VisualTokenBatch(ids, weights, torch.zeros_like(ids), positions, [""], vision, regression, None, visual)


def published(model: Emu, batch: VisualTokenBatch) -> Tensor:
    """Both losses from all logits, as the published forward computes them."""
    states: list[Tensor] = []
    embedded = model.embed(batch.ids, batch.vision, batch.visual)
    hidden = model.decoded(embedded, batch.positions, None, lambda passed, stream: states.append(stream))
    logits = model.decoder.head(hidden).float()
    targets = torch.where(batch.weights > 0, batch.ids, -100)
    language = F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
    places = batch.regression[:, 1:] > 0
    regression = F.mse_loss(model.regression_head(hidden[:, :-1][places]), embedded[:, 1:][places].detach())
    return language + regression


def loss_of(side: str, model: Emu, batch: VisualTokenBatch) -> Tensor:
    """The loss of a side."""
    if side == "ours":
        return NextElement(NextToken(held_logits=HELD))(model, batch)["loss"]
    return published(model, batch)


def step(side: str, tokens: int) -> dict[str, Any]:
    """Peak memory, seconds, loss and norms of all gradients of one step in this process."""
    model = model_of()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter).add_(0)
    batch = batch_of(tokens)
    loss_of(side, model, batch_of(PICTURES * (COUNT + 4))).backward()  # loads what torch loads when it is first used
    model.zero_grad(set_to_none=False)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = seconds()
    value = loss_of(side, model, batch)
    value.backward()
    spent, peak = seconds() - start, _status("VmHWM") - before
    norms = {name: float(p.grad.norm()) for name, p in model.named_parameters()}
    return {"MiB": peak / 1024, "seconds": spent, "loss": value.item(), "norms": norms}


def measure(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """One step in a process of its own."""
    words = ["--side", side, "--tokens", str(options.tokens), "--threads", str(options.threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Largest relative difference of the loss or of a gradient's norm."""
    pairs = [(first["norms"][name], other) for name, other in second["norms"].items()]
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in [(first["loss"], second["loss"]), *pairs])


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=2, help="processes of each side, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="256 tokens, one round; records nothing")
    parser.add_argument("--side", choices=SIDES, help="measure once (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.side:
        print(json.dumps(step(options.side, options.tokens)))
        return
    if options.quick:
        options.rounds, options.tokens = 1, 256
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            runs[side].append(measure(side, options))
    gap = difference(*(runs[side][0] for side in SIDES))
    assert gap < TOLERANCE, f"losses or gradients differ by {gap}"
    logits = options.tokens * VOCAB * 4 / 2**20
    peaks = {side: statistics.median(run["MiB"] for run in own) for side, own in runs.items()}
    rows = [
        {
            "side": side,
            "tokens": options.tokens,
            "peak MiB": peaks[side],
            "share of the logits": peaks[side] / logits,
            "times less": peaks["all logits"] / peaks[side],
            "seconds": statistics.median(run["seconds"] for run in runs[side]),
            "differs by": gap if side == "ours" else 0.0,
        }
        for side in SIDES
    ]
    record("emu_loss_memory", rows, "python benchmarks/emu_loss_memory.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
