"""Memory and time of EVE v1's training step: what patch alignment and the output layer hold.

    python benchmarks/eve_taps.py          # one thread: about three minutes

EVE-7B's widths divided by eight: 32 blocks, 512 wide, a teacher of 128; vocabulary 8,000. One row of 680 tokens with a
square picture of 24 x 24 cells (601 tokens) behind 16 tokens of question and before 63 of answer; random weights;
blocks recomputed in the backward pass. The teacher's features are given, so that its own work does not count; nine
layers are tapped.

- "language": cross-entropy alone, ours: the output layer at labels only.
- "taps": the same with alignment, ours: nine layers, at the patches alone.
- "stacked": the same with alignment from one tensor of the states of all 33 layers at all tokens, as the published code
  makes it.
- "all logits": cross-entropy alone, from the logits of all tokens in float32, as the published code computes them.

Memory is the most that a process of its own holds during a step above what it holds when weights and gradients exist.
"kept" is the size of the copied states, before what the
aligning layer makes of them. Losses and gradients of "taps" and "stacked", and of "language" and "all
logits", must agree. All run with MALLOC_MMAP_THRESHOLD_=65536, which makes glibc hand back what is freed.
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
from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.decoders.patch_aligning import patch_places
from multimodal_zoo.encoders.masked_student import PatchFeatures
from multimodal_zoo.nn.patch_cells import PatchCells
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.patch_alignment import AlignedNextToken, picture_distances
from multimodal_zoo.registry import build

SIDES = ("language", "taps", "stacked", "all logits")
DEPTH, WIDTH, VOCAB, TEACHER_WIDTH, SIDE = 32, 512, 8000, 128, 24
QUESTION, ANSWER = 16, 63
#: Sides that compute the same in two ways.
PAIRS = (("taps", "stacked"), ("language", "all logits"))
TOLERANCE = 1e-4


def eve() -> Eve:
    """The model, with the aligning layer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 512, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
    decoder = node_from_hf({"model_type": "llama", "vocab_size": VOCAB, "rms_norm_eps": 1e-5, **sizes})
    decoder["blocks"]["checkpoint"] = "block"
    embedding = {"type": "eve_patch_embedding", "width": WIDTH, "hidden": 64, "patch": 2, "window": 2}
    aligner = {"type": "patch_aligning", "width": WIDTH, "teacher_width": TEACHER_WIDTH, "depth": DEPTH}
    node = {"type": "eve", "decoder": decoder, "vision_embedding": embedding, "aligner": aligner}
    return build(node, path="model").train()


def batch_of(rows: int, side: int = SIDE) -> PictureTokenBatch:
    """Rows of question, picture and answer; answers count."""
    torch.manual_seed(1)
    pictures = PatchCells(torch.randn(rows * side**2, 4, 12), ((side, side),) * rows, 2, 2)
    tokens = QUESTION + pictures.tokens[0] + ANSWER
    vision, weights = torch.zeros(rows, tokens, dtype=torch.bool), torch.zeros(rows, tokens)
    vision[:, QUESTION : QUESTION + pictures.tokens[0]] = True
    weights[:, -ANSWER:] = 1
    ids, positions = torch.randint(VOCAB, (rows, tokens)), torch.arange(tokens).expand(rows, -1)
    return PictureTokenBatch(
        ids,
        weights,
        torch.zeros_like(ids),
        positions,
        [""] * rows,
        vision,
        pictures,
        torch.zeros(rows, 3, 1, 1),
        [(0, 0, side, side)] * rows,
    )


class Given(nn.Module):
    """A teacher whose features are there already."""

    width = TEACHER_WIDTH

    def forward(self, images: Tensor) -> PatchFeatures:
        """The same features for the same number of pictures."""
        generator = torch.Generator().manual_seed(2)
        return PatchFeatures(torch.randn(len(images), SIDE**2, TEACHER_WIDTH, generator=generator), (SIDE, SIDE))


def stacked(model: Eve, batch: PictureTokenBatch) -> Tensor:
    """Both losses, from the states of all layers at all tokens."""
    states: list[Tensor] = []
    hidden = model(**batch.inputs(), observe=lambda passed, stream: states.append(stream))
    everything = torch.stack(states, 2)  # (batch, tokens, layers, width)
    assert batch.pictures is not None
    places = patch_places(batch.vision, batch.pictures.grids, [1] * len(batch.pictures))[:, 0]
    tapped = [everything[:, :, layer].flatten(0, 1)[places] for layer in model.aligner.taps]
    distances = picture_distances(model.aligner, tapped, Given()(batch.teacher), batch.boxes, "cosine")
    return NextToken().measured(model, hidden, batch)["loss"] + distances.mean()


def all_logits(model: Eve, batch: PictureTokenBatch) -> Tensor:
    """Cross-entropy over the logits of all tokens."""
    logits = model.decoder.head(model(**batch.inputs()))
    targets = torch.where(batch.weights > 0, batch.ids, -100)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)


def loss_of(side: str, model: Eve, batch: PictureTokenBatch) -> Tensor:
    """The loss of a side."""
    if side == "stacked":
        return stacked(model, batch)
    if side == "all logits":
        return all_logits(model, batch)
    objective = NextToken() if side == "language" else AlignedNextToken(NextToken(), Given())
    return objective(model, batch)["loss"]


def kept(side: str, rows: int) -> float:
    """Copied states, in MiB."""
    layers = {"taps": len(range(DEPTH, -1, -4)) * SIDE**2, "stacked": (DEPTH + 1) * batch_of(1).ids.shape[1]}
    return layers.get(side, 0) * rows * WIDTH * 4 / 2**20


def step(side: str, rows: int) -> dict[str, Any]:
    """Peak memory, seconds, loss and sizes of all gradients of one step in this process."""
    model = eve()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter).add_(0)
    batch = batch_of(rows)
    loss_of(side, model, batch_of(1, 2)).backward()  # loads what torch loads when it is first used
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
    words = ["--side", side, "--rows", str(options.rows), "--threads", str(options.threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    print(side, {key: value for key, value in found.items() if key != "norms"}, file=sys.stderr, flush=True)
    return found


def difference(first: dict[str, Any], second: dict[str, Any]) -> float:
    """Largest relative difference of the loss or of a gradient's norm."""
    pairs = [(first["norms"][name], other) for name, other in second["norms"].items()]
    return max(abs(a - b) / max(abs(b), 1e-6) for a, b in [(first["loss"], second["loss"]), *pairs])


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one round; records nothing")
    parser.add_argument("--side", choices=SIDES, help="measure once (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.side:
        print(json.dumps(step(options.side, options.rows)))
        return
    if options.quick:
        options.rounds = 1
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            runs[side].append(measure(side, options))
    gaps = {pair: difference(*(runs[side][0] for side in pair)) for pair in PAIRS}
    assert max(gaps.values()) < TOLERANCE, f"losses or gradients differ: {gaps}"
    peaks = {side: statistics.median(run["MiB"] for run in own) for side, own in runs.items()}
    whole = kept("stacked", options.rows)
    rows = [
        {
            "side": side,
            "kept MiB": kept(side, options.rows),
            "share of all states": kept(side, options.rows) / whole,
            "peak MiB": peaks[side],
            "above language MiB": peaks[side] - peaks["language"],
            "share of stacked": (peaks[side] - peaks["language"]) / (peaks["stacked"] - peaks["language"]),
            "seconds": statistics.median(run["seconds"] for run in runs[side]),
            "differs by": next((gap for pair, gap in gaps.items() if side == pair[1]), 0.0),
        }
        for side in SIDES
    ]
    record("eve_taps", rows, "python benchmarks/eve_taps.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
