"""A whole training step of DeCLIP, ViT-B/32, against the published way of computing it: same weights, same loss.

    python benchmarks/declip_step.py            # batch 32, one thread: a few minutes

The baseline is written from the description of the published code, with its weights under its names: texts padded to 77
and every token of them computed, attention that also returns its averaged weights (so that no fused kernel serves), the
whole vocabulary's logits at every place, a bank of 65,536 texts that is copied and normalised at each look-up. Ours is
the model and objective that `mmzoo train declip/...` trains. Captions are names and keywords of the embedded emoji, 16
tokens long on average and 45 at most; views are random pictures. Each side updates with AdamW, ours fused as its
recipes do, the baseline as torch does by default; freed memory is kept on both sides, as `mmzoo train` does on a CPU.
Every measurement has a process of its own; the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _report import keep_freed_memory, ratio, record, seconds, use_threads
from clip_training_step import captions
from torch import Tensor, nn

VARIANT, SIDES = "declip_vit_b32_yfcc", ("ours", "published way")
BANK = 65536
TOLERANCE = 1e-4  # between losses


class Attention(nn.MultiheadAttention):
    """Torch's attention, asked for its averaged weights."""


class Block(nn.Module):
    """A residual block with the published names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:  # (tokens, batch, width)
        """Mix tokens `(tokens, batch, width)`."""
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=True, attn_mask=mask)[0]
        hidden = self.mlp.c_fc(self.ln_2(tokens))
        return tokens + self.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))


class Stack(nn.Module):
    """Blocks one after the other."""

    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads) for _ in range(depth))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The residual stream `(batch, tokens, width)` after the last block."""
        tokens = tokens.transpose(0, 1)
        for block in self.resblocks:
            tokens = block(tokens, mask)
        return tokens.transpose(0, 1)


class ImageTower(nn.Module):
    """ViT-B/32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 768, 32, 32, bias=False).requires_grad_(False)
        self.class_embedding = nn.Parameter(torch.empty(768))
        self.positional_embedding = nn.Parameter(torch.empty(50, 768))
        self.proj = nn.Parameter(torch.empty(768, 512))
        self.ln_pre, self.ln_post = nn.LayerNorm(768), nn.LayerNorm(768)
        self.transformer = Stack(768, 12, 12)

    def forward(self, images: Tensor) -> Tensor:
        """Projected class tokens."""
        tokens = self.conv1(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(len(tokens), 1, -1), tokens], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(tokens))[:, 0]) @ self.proj


class TextTower(nn.Module):
    """Twelve causal blocks over all 77 places."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(49409, 512)
        self.positional_embedding = nn.Parameter(torch.empty(77, 512))
        self.transformer, self.ln_final = Stack(512, 8, 12), nn.LayerNorm(512)
        self.text_projection = nn.Linear(512, 512)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Projected end tokens, and all tokens."""
        mask = torch.full((77, 77), -math.inf).triu(1)
        words = self.ln_final(self.transformer(self.token_embedding(ids) + self.positional_embedding, mask))
        return self.text_projection(words[torch.arange(len(ids)), ids.argmax(1)]), words


def mlp(sizes: dict[str, tuple[int, int]], norms: dict[str, int]) -> nn.Module:
    """Named linear layers and batch norms."""
    layers = nn.Module()
    for name, (before, after) in sizes.items():
        layers.add_module(name, nn.Linear(before, after))
    for name, width in norms.items():
        layers.add_module(name, nn.BatchNorm1d(width))
    return layers


class Published(nn.Module):
    """The published model and its losses, from their description."""

    def __init__(self) -> None:
        super().__init__()
        self.visual, self.encode_text = ImageTower(), TextTower()
        self.logit_scale = nn.Parameter(torch.empty(1))
        linear = {"linear1": (512, 1024), "linear2": (1024, 1024), "linear3": (1024, 1024)}
        self.projector = mlp(linear, dict.fromkeys(("bn1", "bn2", "bn3"), 1024))
        self.predictor = mlp({"linear1": (1024, 512), "layer2": (512, 1024)}, {"bn1": 512})
        self.text_label_predictor = nn.Linear(512, 49409)
        self.bank, self.pointer = torch.zeros(512, BANK), 0  # one column an entry, on the CPU

    def similar(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """SimSiam's projection and prediction."""
        parts, head = self.projector, self.predictor
        hidden = F.relu(parts.bn1(parts.linear1(embedding)))
        projection = parts.bn3(parts.linear3(F.relu(parts.bn2(parts.linear2(hidden)))))
        return projection, head.layer2(F.relu(head.bn1(head.linear1(projection))))

    def look_up(self, features: Tensor, update: bool) -> Tensor:
        """Nearest entries of a copy of the bank, normalised anew."""
        bank = F.normalize(self.bank.clone(), dim=0)
        found = (F.normalize(features, dim=1) @ bank).argmax(1)
        neighbours = self.bank.clone()[:, found].T
        if update:
            end = self.pointer + len(features)
            kept = min(len(features), BANK - self.pointer)
            self.bank[:, self.pointer : self.pointer + kept] = features[:kept].T
            self.pointer = 0 if end >= BANK else end
        return neighbours

    def forward(self, first: Tensor, second: Tensor, masked: Tensor, labels: Tensor, augmented: Tensor) -> Tensor:
        """The loss of a batch."""
        images = [self.visual(first), self.visual(second)]
        (t1, words), (t2, _) = self.encode_text(masked), self.encode_text(augmented)
        (z1, p1), (z2, p2) = self.similar(images[0]), self.similar(images[1])
        siam = -(F.cosine_similarity(p1, z2.detach()).mean() + F.cosine_similarity(p2, z1.detach()).mean()) / 2
        logits = self.text_label_predictor(words)  # every place, every word
        named = F.cross_entropy(logits[labels != -100], labels[labels != -100])
        images = [one / one.norm(dim=-1, keepdim=True) for one in images]
        texts = [one / (one.norm(dim=-1, keepdim=True) + 1e-10) for one in (t1, t2)]
        with torch.no_grad():
            near = [F.normalize(self.look_up(one.detach(), update=False), dim=1) for one in texts]
            self.look_up(texts[1].detach(), update=True)
            self.look_up(texts[0].detach(), update=True)
        scale, target = self.logit_scale.exp(), torch.arange(len(first))
        pairs = [(i, t) for i in images for t in texts]
        clip = sum(
            (F.cross_entropy(scale * i @ t.T, target) + F.cross_entropy(scale * t @ i.T, target)) / 2 for i, t in pairs
        )
        neighbour = sum(F.cross_entropy(scale * i @ n.T, target) for i in images for n in near)
        return 0.4 * clip / 4 + 0.2 * neighbour / 4 + 0.2 * siam + 0.2 * named


def write(folder: Path, options: argparse.Namespace) -> float:
    """Weights in the published naming, the bank and the batches, for all processes; gives the mean length of texts."""
    import multimodal_zoo as zoo
    from multimodal_zoo.checkpoints.tables import find_naming

    model = zoo.create(VARIANT)
    torch.save(find_naming("declip").save(model.state_dict()), folder / "weights.pt")
    torch.manual_seed(0)
    torch.save(F.normalize(torch.randn(BANK, 512), dim=1), folder / "bank.pt")
    size, batches, lengths = options.batch, [], []
    texts = captions(size * (options.repeats + 1))
    tokenizer = model.processor.tokenizer
    for start in range(0, len(texts), size):
        ids = model.processor.texts(texts[start : start + size])
        augmented = model.processor.texts([text.split(", ", 1)[-1] for text in texts[start : start + size]])
        labels = torch.full_like(ids, -100)
        inside = (
            (ids != tokenizer.start_id)
            & (ids != tokenizer.end_id)
            & (torch.arange(ids.shape[1]) < ids.argmax(1)[:, None])
        )
        chosen = inside & (torch.rand(ids.shape) < 0.15)
        chosen[0, 1] = True  # the published way gives NaN where nothing is masked
        labels[chosen] = ids[chosen]
        masked = ids.masked_fill(chosen, tokenizer.mask_id)
        views = torch.randn(2, size, 3, 224, 224)
        batches.append(
            {"first": views[0], "second": views[1], "masked": masked, "labels": labels, "augmented": augmented}
        )
        lengths += (ids.argmax(1) + 1).tolist()
    torch.save(batches, folder / "batches.pt")
    return statistics.mean(lengths[size:])


def ours(folder: Path) -> tuple[nn.Module, Callable[[dict[str, Tensor]], Tensor]]:
    """Our model with the given weights, and its loss on a batch."""
    import multimodal_zoo as zoo
    from multimodal_zoo.checkpoints.load import load_into
    from multimodal_zoo.checkpoints.tables import find_naming
    from multimodal_zoo.objectives.batch import MultiViewBatch
    from multimodal_zoo.registry import build

    model = zoo.create(VARIANT).train()
    load_into(model, torch.load(folder / "weights.pt"), find_naming("declip"))
    objective = build(zoo.compose(None, [f"+model={VARIANT}", "+objective=declip"]).objective, path="objective")
    queue = objective.parts["nearest_neighbour"].queue
    queue.entries.copy_(torch.load(folder / "bank.pt"))
    queue.inverse_norms.fill_(1.0)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        views = MultiViewBatch(
            {name: batch[name] for name in ("first", "second")},
            {name: batch[name] for name in ("masked", "augmented")},
            {"masked": batch["labels"]},
            [str(i) for i in range(len(batch["first"]))],
        )
        return objective(model, views)["loss"]

    return model, loss


def theirs(folder: Path) -> tuple[nn.Module, Callable[[dict[str, Tensor]], Tensor]]:
    """The published way with the given weights, and its loss on a batch."""
    model = Published().train()
    model.load_state_dict(torch.load(folder / "weights.pt"))
    model.bank.copy_(torch.load(folder / "bank.pt").T)

    def loss(batch: dict[str, Tensor]) -> Tensor:
        full = {
            name: F.pad(batch[name], (0, 77 - batch[name].shape[1]), value=-100 if name == "labels" else 0)
            for name in ("masked", "labels", "augmented")
        }
        return model(batch["first"], batch["second"], **full)

    return model, loss


def steps(folder: Path, side: str) -> Iterator[dict[str, Any]]:
    """Seconds and loss of each step; the first one warms up."""
    keep_freed_memory()
    model, loss = ours(folder) if side == SIDES[0] else theirs(folder)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    fused = True if side == SIDES[0] else None
    update = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.98), weight_decay=0.1, fused=fused)
    for batch in torch.load(folder / "batches.pt"):
        start = seconds()
        model.zero_grad()
        value = loss(batch)
        value.backward()
        update.step()
        yield {"seconds": seconds() - start, "loss": value.item()}


def measure(folder: Path, side: str, threads: int) -> dict[str, Any]:
    """One side in a process of its own."""
    words = [sys.executable, __file__, "--threads", str(threads), "--side", side, str(folder)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    print(side, found, file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2, help="timed steps of each process")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each side, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two pairs, one step; records nothing")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help="measure once (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.side:
        found = list(steps(Path(options.side[1]), options.side[0]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            json.dumps(
                {"seconds": [s["seconds"] for s in found[1:]], "losses": [s["loss"] for s in found], "MiB": peak}
            )
        )
        return
    if options.quick:
        options.batch, options.repeats, options.rounds = 2, 1, 1
    with tempfile.TemporaryDirectory() as place:
        length = write(Path(place), options)
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(options.rounds):
            for side in SIDES:
                runs[side].append(measure(Path(place), side, options.threads))
    mine, other = ([s for run in runs[side] for s in run["seconds"]] for side in SIDES)
    difference = abs(runs[SIDES[0]][0]["losses"][0] - runs[SIDES[1]][0]["losses"][0])  # before any update
    assert difference < TOLERANCE, f"losses differ by {difference}"
    row = {
        "batch": options.batch,
        "mean length of texts": length,
        "ours images/s": options.batch / statistics.median(mine),
        "published way images/s": options.batch / statistics.median(other),
        "ratio": ratio(other, mine),
        "ratio of least": min(other) / min(mine),
        "loss difference": difference,
        "ours peak MiB": max(run["MiB"] for run in runs[SIDES[0]]),
        "published way peak MiB": max(run["MiB"] for run in runs[SIDES[1]]),
    }
    record("declip_step", [row], "python benchmarks/declip_step.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
