"""Losses of the CLIP benchmark, forward and backward, against the ways of the published code.

    python benchmarks/declip_losses.py            # every part: seconds, peak memory, ratios
    python benchmarks/declip_losses.py --growth   # token-wise loss: peak memory for batches of 64 to 1,024, a figure

The published ways are written anew from what the code does: all products of all tokens at once and once for each
direction, cosines broadcast, logits at every word, a queue that is copied and normalised at every look-up. Each
measurement is a process of its own; processes of both sides take turns, and a ratio is the median over turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _report import peak_mib, record, seconds, use_threads

SIDES = ("ours", "published")
FIGURE = Path(__file__).parents[1] / "docs/figures/filip_memory.png"
BATCHES = (64, 128, 256, 512, 1024)
#: The largest batch at which the published way fits into 8 GB.
PUBLISHED_UP_TO = 256
#: How far values and gradients of both sides may be apart, relative to the largest.
ALLOWED = 2e-4
SIZES: dict[str, dict[str, Any]] = {
    "token-wise, all tokens": {"batch": 128, "image": 49, "text": 76, "width": 256, "top_k": None},
    "token-wise, top 16": {"batch": 128, "image": 49, "text": 76, "width": 256, "top_k": 16},
    "NT-Xent": {"local": 128, "gathered": 1024, "width": 256},
    "masked words": {"batch": 16, "context": 77, "masked": 38, "classes": 49409, "width": 512},
    "neighbour queue": {"size": 65536, "width": 512, "batch": 128},
}
QUICK: dict[str, dict[str, Any]] = {
    "token-wise, all tokens": {"batch": 4, "image": 5, "text": 7, "width": 8, "top_k": None},
    "token-wise, top 16": {"batch": 4, "image": 18, "text": 20, "width": 8, "top_k": 16},
    "NT-Xent": {"local": 4, "gathered": 8, "width": 8},
    "masked words": {"batch": 2, "context": 7, "masked": 3, "classes": 11, "width": 8},
    "neighbour queue": {"size": 64, "width": 8, "batch": 4},
}


def token_wise(batch: int, image: int, text: int, width: int, top_k: int | None) -> dict[str, Callable]:
    import torch
    from torch.nn import functional as F

    from multimodal_zoo.objectives.token_matching import token_wise_loss

    shapes = (batch, image, width), (batch, text, width)
    sides = [F.normalize(torch.randn(shape), dim=-1).requires_grad_() for shape in shapes]
    leaves = [*sides, torch.tensor(14.3, requires_grad=True)]

    def best(queries, candidates):
        return torch.einsum("bnd,lkd->blnk", queries, candidates).max(-1).values.mean(-1)

    def published():
        images, texts, scale = leaves
        candidates = [images, texts]
        if top_k is not None:
            own = images @ texts.mT
            kept = [own.sum(axis).topk(top_k).indices[..., None].expand(-1, -1, width) for axis in (2, 1)]
            candidates = [side.gather(1, places) for side, places in zip(candidates, kept, strict=True)]
        target = torch.arange(batch)
        forth, back = best(images, candidates[1]), best(texts, candidates[0])
        loss = (F.cross_entropy(scale * forth, target) + F.cross_entropy(scale * back, target)) / 2
        return loss, *torch.autograd.grad(loss, leaves)

    def ours():
        loss = token_wise_loss(*leaves, top_k).loss
        return loss, *torch.autograd.grad(loss, leaves)

    return {"ours": ours, "published": published}


def two_views(local: int, gathered: int, width: int) -> dict[str, Callable]:
    """One process's rows against given columns of all: what a process of a large run computes."""
    import torch
    from torch.nn import functional as F

    from multimodal_zoo.objectives import nt_xent

    everyones = torch.randn(gathered, 2, width).requires_grad_()
    views = everyones.detach()[:local].clone().requires_grad_()

    def published():
        rows, columns = views.transpose(0, 1).flatten(0, 1), everyones.transpose(0, 1).flatten(0, 1)
        logits = F.cosine_similarity(rows[:, None], columns, dim=2) / 0.1
        number = torch.arange(local)
        own, other = torch.cat([number, number + gathered]), torch.cat([number + gathered, number])
        positive = logits.gather(1, other[:, None])
        rest = torch.ones_like(logits, dtype=torch.bool).scatter(1, torch.stack([own, other], 1), False)
        negative = logits[rest].reshape(2 * local, -1)
        target = torch.zeros(2 * local, dtype=torch.long)
        loss = F.cross_entropy(torch.cat([positive, negative], 1), target, reduction="sum") / (2 * local)
        return loss, *torch.autograd.grad(loss, [views, everyones])

    nt_xent.gather_with_gradient = lambda _: everyones  # the columns of a run of several processes

    def ours():
        loss = nt_xent.nt_xent(views[:, 0], views[:, 1], 0.1)
        return loss, *torch.autograd.grad(loss, [views, everyones])

    return {"ours": ours, "published": published}


def masked_words(batch: int, context: int, masked: int, classes: int, width: int) -> dict[str, Callable]:
    import torch
    from torch.nn import functional as F

    from multimodal_zoo.objectives.linear_cross_entropy import linear_cross_entropy

    words = torch.randn(batch, context, width, requires_grad=True)
    head = torch.nn.Linear(width, classes)
    labels = torch.full((batch * context,), -100)
    labels[torch.randperm(len(labels))[:masked]] = torch.randint(0, classes, (masked,))
    labels, leaves = labels.view(batch, context), [words, head.weight, head.bias]

    def published():
        loss = F.cross_entropy(head(words)[labels >= 0], labels[labels >= 0])
        return loss, *torch.autograd.grad(loss, leaves)

    def ours():
        chosen = labels >= 0
        loss = linear_cross_entropy(words[chosen], head.weight, head.bias, labels[chosen]).losses.mean()
        return loss, *torch.autograd.grad(loss, leaves)

    return {"ours": ours, "published": published}


def neighbour_queue(size: int, width: int, batch: int) -> dict[str, Callable]:
    """A step's look-ups and updates: caption and augmented caption, and once more with the update."""
    import torch
    from torch.nn import functional as F

    from multimodal_zoo.objectives.queue import NeighbourQueue

    queue = NeighbourQueue(size, width)
    bank, texts = queue.entries.T.contiguous(), [torch.randn(batch, width) for _ in range(2)]

    def look_up(features):
        held = bank.clone()
        products = F.normalize(features, dim=1) @ F.normalize(held, dim=0)
        return held.index_select(1, products.topk(1, dim=1).indices[:, 0]).T

    @torch.no_grad()
    def published():
        found = look_up(texts[0]), look_up(texts[1])
        look_up(texts[1])
        for start, features in ((0, texts[1]), (batch, texts[0])):
            bank[:, start : start + batch] = features.T
        return found

    def ours():
        found = queue.nearest(torch.cat(texts)).features
        queue.pointer.zero_()
        for features in reversed(texts):
            queue.enqueue(features)
        return found.split(batch)

    return {"ours": ours, "published": published}


MAKERS: dict[str, Callable[..., dict[str, Callable]]] = {
    "token-wise, all tokens": token_wise,
    "token-wise, top 16": token_wise,
    "NT-Xent": two_views,
    "masked words": masked_words,
    "neighbour queue": neighbour_queue,
}


def one_side(part: str, side: str, sizes: dict[str, Any], times: int) -> None:
    """Print MiB of the first call and seconds of the quickest further one, as the only work of this process."""
    import torch

    use_threads(1)
    torch.manual_seed(0)
    small = MAKERS[part](**QUICK[part])
    small[side]()  # loads what is loaded once
    call = MAKERS[part](**sizes)[side]
    memory, taken = peak_mib(call), []
    for _ in range(times):
        start = seconds()
        call()
        taken.append(seconds() - start)
    print(json.dumps({"MiB": memory, "s": min(taken, default=0.0)}))


def in_a_process(part: str, side: str, sizes: dict[str, Any], times: int = 2) -> dict[str, float]:
    command = [sys.executable, __file__, "--one", json.dumps([part, side, sizes, times])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def difference(part: str, sizes: dict[str, Any]) -> float:
    """The largest difference of both sides' results, each relative to its largest value."""
    import torch

    torch.manual_seed(0)
    results = [[one.detach() for one in call()] for call in MAKERS[part](**sizes).values()]
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True))


def measured(part: str, sizes: dict[str, Any], repeats: int) -> dict[str, str | float]:
    """One line of the table."""
    apart = difference(part, sizes)
    assert apart < ALLOWED, f"{part}: the results differ by {apart}"
    turns = [{side: in_a_process(part, side, sizes) for side in SIDES} for _ in range(repeats)]
    row: dict[str, str | float] = {"part": part}
    for key in ("s", "MiB"):
        for side in SIDES:
            row[f"{side} {key}"] = statistics.median(turn[side][key] for turn in turns)
    for name, key in (("times faster", "s"), ("times less memory", "MiB")):
        row[name] = statistics.median(turn["published"][key] / max(turn["ours"][key], 1e-9) for turn in turns)
    return row | {"relative difference": apart}


def growth(batches: tuple[int, ...], sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """Peak memory of the token-wise loss over all tokens for each batch."""
    rows = []
    for batch in batches:
        row: dict[str, Any] = {"batch": batch}
        for side in SIDES:
            if side == "ours" or batch <= PUBLISHED_UP_TO:
                row[f"{side} MiB"] = in_a_process("token-wise, all tokens", side, sizes | {"batch": batch}, 0)["MiB"]
        values = sizes["image"] + sizes["text"]
        row["gradients MiB"] = batch * values * sizes["width"] * 4 / 2**20
        row["ours KiB a pair"] = row["ours MiB"] * 1024 / batch
        rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]]) -> None:
    """Peak memory against batch, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    lines = {"published MiB": "all products at once", "ours MiB": "in tiles", "gradients MiB": "gradients themselves"}
    for (key, label), style in zip(lines.items(), ("s--", "o-", ":"), strict=True):
        points = [(row["batch"], row[key]) for row in rows if key in row]
        axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set(xscale="log", yscale="log", xlabel="pairs in the batch", ylabel="peak MiB, forward and backward")
    axes.set_xticks([row["batch"] for row in rows], [str(row["batch"]) for row in rows])
    axes.minorticks_off()
    axes.set_title("Token-wise loss, 49 x 76 tokens of width 256")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="memory of the token-wise loss against batch instead")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once; records nothing")
    parser.add_argument("--one", help="one measurement (used by itself)")
    options = parser.parse_args()
    use_threads(1)
    if options.one:
        one_side(*json.loads(options.one))
        return
    sizes = QUICK if options.quick else SIZES
    command = "python benchmarks/declip_losses.py"
    if options.growth:
        rows = growth((2, 4) if options.quick else BATCHES, sizes["token-wise, all tokens"])
        record("declip_losses_growth", rows, f"{command} --growth", keep=not options.quick)
        if not options.quick:
            draw(rows)
        return
    rows = [measured(part, sizes[part], 1 if options.quick else options.repeats) for part in sizes]
    record("declip_losses", rows, command, keep=not options.quick)


if __name__ == "__main__":
    main()
