"""One training step of CLIP ViT-B/32 on real captions, against open_clip: same weights, same batch, same loss.

The captions are names and keywords of the embedded emoji pairs, on average 16 tokens long and 45 at most. Ours trims a
batch to its longest text; open_clip pads to 77. The second row gives both the padded texts.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Sequence
from itertools import cycle

import open_clip
import torch
from _report import alternate, ratio, record, use_threads
from _weights import copy_open_clip
from torch import Tensor, nn

import multimodal_zoo as zoo
from multimodal_zoo.data.emoji_table import load_table
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.objectives.contrastive import ContrastiveObjective

MODEL = "ViT-B-32-quickgelu"


def captions(count: int) -> list[str]:
    """Captions of emoji drawn at random, always the same ones."""
    table = [row for row in load_table() if not row.toned]
    return [", ".join([row.name, *row.keywords]) for row in random.Random(0).sample(table, count)]


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2)


def our_step(model: nn.Module, images: Tensor, batches: Sequence[Tensor]) -> Callable[[], float]:
    optim, objective, turn = optimizer(model), ContrastiveObjective(), cycle(batches)
    keys = [str(i) for i in range(len(images))]

    def step() -> float:
        optim.zero_grad()
        loss = objective(model, ImageTextBatch(images, next(turn), keys))["loss"]
        loss.backward()
        optim.step()
        return loss.item()

    return step


def their_step(model: nn.Module, images: Tensor, batches: Sequence[Tensor]) -> Callable[[], float]:
    optim, loss_function, turn = optimizer(model), open_clip.loss.ClipLoss(), cycle(batches)

    def step() -> float:
        optim.zero_grad()
        loss = loss_function(*model(images, next(turn)))
        loss.backward()
        optim.step()
        return loss.item()

    return step


def padded(ids: Tensor, length: int) -> Tensor:
    return torch.cat([ids, ids.new_zeros(len(ids), length - ids.shape[1])], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="steps of each, every one on another batch of captions")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    use_threads(options.threads)
    torch.manual_seed(0)
    theirs = open_clip.create_model(MODEL).train()
    ours = zoo.create("clip_vit_b32").train()
    images = torch.randn(options.batch, 3, 224, 224)
    texts = captions(options.batch * (options.repeats + 1))  # the first batch warms up and compares
    parts = [texts[i : i + options.batch] for i in range(0, len(texts), options.batch)]
    trimmed = [ours.processor.texts(part) for part in parts]
    full = [open_clip.get_tokenizer(MODEL)(part) for part in parts]
    for mine, other in zip(trimmed, full, strict=True):
        assert torch.equal(padded(mine, other.shape[1]), other), "the tokenizers disagree"
    rows = []
    for text, batches in (("trimmed to the longest of the batch", trimmed), ("padded to 77, as open_clip", full)):
        copy_open_clip(theirs, ours)
        steps = {"ours": our_step(ours, images, batches), "open_clip": their_step(theirs, images, full)}
        losses = {name: step() for name, step in steps.items()}
        difference = abs(losses["ours"] - losses["open_clip"])
        assert difference < 1e-4, f"losses differ: {losses}"
        times = alternate(steps, options.repeats, warm_up=0)
        rows.append(
            {
                "texts of ours": text,
                "mean length": statistics.mean(ids.shape[1] for ids in batches[1:]),
                "ours images/s": options.batch / statistics.median(times["ours"]),
                "open_clip images/s": options.batch / statistics.median(times["open_clip"]),
                "ratio": ratio(times["open_clip"], times["ours"]),
                "loss difference": difference,
            }
        )
    record("clip_training_step", rows, "python benchmarks/clip_training_step.py")


if __name__ == "__main__":
    main()
