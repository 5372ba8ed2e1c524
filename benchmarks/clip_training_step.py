"""One training step of CLIP ViT-B/32 on real captions, against open_clip: same weights, same batch, same loss.

The captions are names and keywords of the embedded emoji pairs, on average 16 tokens long and 45 at most. Ours leaves
out what stands behind the end of a text; open_clip pads to 77. Gradients and update are timed apart: ours updates with
AdamW as conf/optim/adamw.yaml declares it (fused), open_clip as its own training program does (the default of torch).
The first line is the step that a user gets, the others tell where the difference comes from.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from _report import alternate, ratio, record, use_threads
from _weights import copy_open_clip
from torch import Tensor, nn

import multimodal_zoo as zoo
from multimodal_zoo.data.emoji_table import load_table
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.objectives.contrastive import ContrastiveObjective, contrastive_loss


def captions(count: int) -> list[str]:
    """Captions of emoji drawn at random, always the same ones."""
    table = [row for row in load_table() if not row.toned]
    return [", ".join([row.name, *row.keywords]) for row in random.Random(0).sample(table, count)]


def optimizer(model: nn.Module, fused: bool | None) -> torch.optim.Optimizer:
    """AdamW; the implementation changes its speed only."""
    return torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=fused)


def gradients(model: nn.Module, loss: Callable[[Tensor], Tensor], batches: Sequence[Tensor]) -> Callable[[], float]:
    """Forward, loss and backward, on the next batch with every call."""
    turn = cycle(batches)

    def call() -> float:
        model.zero_grad()
        value = loss(next(turn))
        value.backward()
        return value.item()

    return call


def padded(ids: Tensor, length: int) -> Tensor:
    """Zeros behind the texts."""
    return torch.cat([ids, ids.new_zeros(len(ids), length - ids.shape[1])], dim=1)


def line(times: dict[str, list[float]], ours: Sequence[str], theirs: Sequence[str], batch: int) -> dict[str, Any]:
    """Speed of two steps, each the sum of its parts."""
    mine, other = (
        [sum(parts) for parts in zip(*(times[name] for name in side), strict=True)] for side in (ours, theirs)
    )
    return {
        "ours images/s": batch / statistics.median(mine),
        "open_clip images/s": batch / statistics.median(other),
        "ratio": ratio(other, mine),
        "ratio of least": min(other) / min(mine),
    }


def compare(ours: nn.Module, theirs: nn.Module, tokenizer: Any, batch: int, repeats: int) -> list[dict[str, Any]]:
    """The lines of the table.

    Args:
        ours: with the weights of theirs.
        theirs: open_clip's.
        tokenizer: open_clip's.
        batch: pairs in a step.
        repeats: steps that are timed, every one on other captions.
    """
    images, keys = torch.randn(batch, 3, 224, 224), [str(i) for i in range(batch)]
    texts = captions(batch * (repeats + 1))  # the first batch warms up and compares
    parts = [texts[i : i + batch] for i in range(0, len(texts), batch)]
    trimmed, full = [ours.processor.texts(part) for part in parts], [tokenizer(part) for part in parts]
    for mine, other in zip(trimmed, full, strict=True):
        assert torch.equal(padded(mine, other.shape[1]), other), "the tokenizers disagree"
    objective, their_objective = ContrastiveObjective(), open_clip.loss.ClipLoss()

    def our_loss(ids: Tensor) -> Tensor:
        return objective(ours, ImageTextBatch(images, ids, keys))["loss"]

    def our_padded_loss(ids: Tensor) -> Tensor:  # every token of every text, as an encoder without `pooled` computes it
        text = F.normalize(ours.text_projection(ours.text(ids).pooled), dim=-1)
        return contrastive_loss(ours.encode_image(images), text, ours.scale()).loss

    def their_loss(ids: Tensor) -> Tensor:
        return their_objective(*theirs(images, ids))

    calls: dict[str, Callable[[], Any]] = {
        "ours": gradients(ours, our_loss, trimmed),
        "open_clip": gradients(theirs, their_loss, full),
        "ours padded": gradients(ours, our_padded_loss, full),
    }
    losses = {name: call() for name, call in calls.items()}
    difference = max(abs(loss - losses["open_clip"]) for loss in losses.values())
    assert difference < 1e-4, f"losses differ: {losses}"
    plain, fused, their = optimizer(ours, None), optimizer(ours, True), optimizer(theirs, None)
    calls |= {"fused": fused.step, "plain": plain.step, "their plain": their.step}
    for name in ("fused", "plain", "their plain"):
        calls[name]()  # allocates the moments
    times = alternate(calls, repeats, warm_up=0)
    sides = (
        ("trimmed", "AdamW of each library's training", ("ours", "fused"), ("open_clip", "their plain")),
        ("trimmed", "AdamW, torch's default, both", ("ours", "plain"), ("open_clip", "their plain")),
        ("trimmed", "none", ("ours",), ("open_clip",)),
        ("padded to 77, as open_clip", "none", ("ours padded",), ("open_clip",)),
    )
    lengths = {"trimmed": statistics.mean(int((ids != 0).sum()) / len(ids) for ids in trimmed[1:])}
    return [
        {"texts of ours": text, "mean length": lengths.get(text, 77), "optimizer": update}
        | line(times, mine, other, batch)
        | {"loss difference": difference}
        for text, update, mine, other in sides
    ]


def main(name: str = "clip_training_step", variant: str = "clip_vit_b32", peer: str = "ViT-B-32-quickgelu") -> None:
    """Measure one variant.

    Args:
        name: of the benchmark that is recorded.
        variant: ours.
        peer: the same architecture in open_clip.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="steps of each, every one on another batch of captions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two pairs, one step; records nothing")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that its weights are random
    use_threads(options.threads)
    torch.manual_seed(0)
    theirs = open_clip.create_model(peer).train()
    ours = zoo.create(variant).train()
    copy_open_clip(theirs, ours)
    batch, repeats = (2, 1) if options.quick else (options.batch, options.repeats)
    rows = compare(ours, theirs, open_clip.get_tokenizer(peer), batch, repeats)
    record(name, rows, f"python benchmarks/{name}.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
