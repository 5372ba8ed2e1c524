"""One training step of CLIP ViT-B/32 on real captions, against open_clip: same weights, same batches, same loss.

Every measurement has a process of its own, as a user's training has; the rivals take turns. The captions are names and
keywords of the embedded emoji pairs, on average 16 tokens long and 45 at most. Ours leaves out what stands behind the
end of a text; open_clip pads to 77. Gradients and update are timed apart: ours updates with AdamW as
conf/optim/adamw.yaml declares it (fused), open_clip as its own training program does (the default of torch). Freed
memory: ours keeps it, as `mmzoo train` does on a CPU (`keep_memory`), or hands it back, as open_clip does.
The first line is the step that a user gets, the others tell where the difference comes from.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _report import ratio, record, seconds, use_threads
from torch import Tensor, nn

import multimodal_zoo as zoo

TOLERANCE = 1e-4  # between losses
KEPT, HANDED_BACK, PEER = "ours", "ours, memory handed back", "open_clip"


def captions(count: int) -> list[str]:
    """Captions of emoji drawn at random, always the same ones."""
    from multimodal_zoo.data.emoji_table import load_table

    table = [row for row in load_table() if not row.toned]
    return [", ".join([row.name, *row.keywords]) for row in random.Random(0).sample(table, count)]


def padded(ids: Tensor, length: int) -> Tensor:
    """Zeros behind the texts."""
    return torch.cat([ids, ids.new_zeros(len(ids), length - ids.shape[1])], dim=1)


def write(folder: Path, options: argparse.Namespace) -> float:
    """Put open_clip's random weights and the batches into files, for all processes.

    Returns:
        the mean length of the captions that are timed, in tokens.
    """
    import open_clip

    torch.manual_seed(0)
    torch.save(open_clip.create_model(options.peer).state_dict(), folder / "weights.pt")
    size, tokenizer = options.batch, open_clip.get_tokenizer(options.peer)
    processor = zoo.create(options.variant, device="meta").processor
    texts = captions(size * (options.repeats + 1))  # the first batch warms up
    parts = [texts[i : i + size] for i in range(0, len(texts), size)]
    trimmed, full = [processor.texts(part) for part in parts], [tokenizer(part) for part in parts]
    for mine, other in zip(trimmed, full, strict=True):
        assert torch.equal(padded(mine, other.shape[1]), other), "the tokenizers disagree"
    torch.save({"images": torch.randn(size, 3, 224, 224), "trimmed": trimmed, "full": full}, folder / "batches.pt")
    return statistics.mean(int((ids != 0).sum()) / len(ids) for ids in trimmed[1:])


def optimizer(model: nn.Module, fused: bool | None) -> torch.optim.Optimizer:
    """AdamW; the implementation changes its speed only."""
    return torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2, fused=fused)


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = seconds()
    call()
    return seconds() - start


def train(
    model: nn.Module, loss: Callable[[Tensor], Tensor], update: torch.optim.Optimizer, batches: Sequence[Tensor]
) -> dict[str, Any]:
    """Training steps: seconds, losses, most memory.

    A step on two pairs allocates the moments and one on the first batch brings memory to its size; neither is timed.
    """
    found: dict[str, Any] = {"gradients": [], "update": [], "losses": []}

    def gradients(ids: Tensor) -> None:
        model.zero_grad()
        value = loss(ids)
        value.backward()
        found["losses"].append(value.item())

    for ids in (batches[0][:2], *batches):
        found["gradients"].append(timed(partial(gradients, ids)))
        found["update"].append(timed(update.step))
    del found["gradients"][:2], found["update"][:2]
    return found | {"MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def ours(folder: Path, variant: str, keep: bool) -> dict[str, Any]:
    """Our steps, as `mmzoo train` runs them on a CPU, or without keeping freed memory.

    With it, also the update of torch's default and the gradients with padded texts, after the steps.
    """
    from multimodal_zoo.checkpoints.load import load_into
    from multimodal_zoo.checkpoints.tables import detect_naming
    from multimodal_zoo.objectives.batch import ImageTextBatch
    from multimodal_zoo.objectives.contrastive import ContrastiveObjective, contrastive_loss
    from multimodal_zoo.training.allocator import keep_freed_memory

    if keep:
        assert keep_freed_memory(), "needs glibc, and no settings of malloc in the environment"
    model, batches = zoo.create(variant).train(), torch.load(folder / "batches.pt")
    state = torch.load(folder / "weights.pt")
    load_into(model, state, detect_naming(state))
    del state
    objective, images = ContrastiveObjective(), batches["images"]
    keys = [str(i) for i in range(len(images))]

    def loss(ids: Tensor) -> Tensor:
        return objective(model, ImageTextBatch(images[: len(ids)], ids, keys[: len(ids)]))["loss"]

    def padded_loss(ids: Tensor) -> Tensor:  # every token of every text, as an encoder without `pooled` computes it
        text = F.normalize(model.text_projection(model.text(ids).pooled), dim=-1)
        return contrastive_loss(model.encode_image(images), text, model.scale()).loss

    found = train(model, loss, optimizer(model, True), batches["trimmed"])
    if keep:
        update = optimizer(model, None)
        update.step()  # allocates the moments
        found["plain"] = [timed(update.step) for _ in found["update"]]
        with torch.no_grad():
            expected = loss(batches["trimmed"][-1]).item()
        model.zero_grad()
        start = seconds()
        value = padded_loss(batches["full"][-1])
        value.backward()
        found |= {"padded": [seconds() - start], "padded difference": abs(value.item() - expected)}
    return found


def theirs(folder: Path, peer: str) -> dict[str, Any]:
    """open_clip's steps."""
    import open_clip

    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that its weights are random
    model, batches = open_clip.create_model(peer).train(), torch.load(folder / "batches.pt")
    model.load_state_dict(torch.load(folder / "weights.pt"))
    objective, images = open_clip.loss.ClipLoss(), batches["images"]
    return train(model, lambda ids: objective(*model(images[: len(ids)], ids)), optimizer(model, None), batches["full"])


def measure(folder: Path, name: str, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """What each side found in each round."""
    found: dict[str, list[dict[str, Any]]] = {KEPT: [], HANDED_BACK: [], PEER: []}
    for _ in range(options.rounds):
        for side, results in found.items():
            words = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--threads", str(options.threads)]
            done = subprocess.run([*words, "--side", side, str(folder)], check=True, stdout=subprocess.PIPE, text=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps({side: results[-1]}), file=sys.stderr, flush=True)
    return found


def compare(found: dict[str, list[dict[str, Any]]], batch: int, length: float) -> list[dict[str, Any]]:
    """The lines of the table, from what `measure` returns."""
    expected = found[PEER][0]["losses"]
    runs = [run for side in found.values() for run in side]
    difference = max(abs(a - b) for run in runs for a, b in zip(run["losses"], expected, strict=True))
    difference = max(difference, *(run["padded difference"] for run in found[KEPT]))
    assert difference < TOLERANCE, f"losses differ: {[run['losses'] for run in runs]}"

    def step(side: str, *parts: str) -> list[float]:
        """Seconds of every step of all rounds, each the sum of its parts."""
        return [sum(times) for run in found[side] for times in zip(*(run[part] for part in parts), strict=True)]

    whole, gradient = step(PEER, "gradients", "update"), step(PEER, "gradients")
    last = [run["gradients"][-1] for run in found[PEER]]  # on the batch that the padded step has
    own, default = "AdamW of each library's training", "AdamW, torch's default, both"
    lines = (
        ("trimmed", own, KEPT, step(KEPT, "gradients", "update"), whole),
        ("trimmed", own, HANDED_BACK, step(HANDED_BACK, "gradients", "update"), whole),
        ("trimmed", default, KEPT, step(KEPT, "gradients", "plain"), whole),
        ("trimmed", "none", KEPT, step(KEPT, "gradients"), gradient),
        ("trimmed", "none", HANDED_BACK, step(HANDED_BACK, "gradients"), gradient),
        ("padded to 77, as open_clip", "none", KEPT, step(KEPT, "padded"), last),
    )
    peaks = {side: max(run["MiB"] for run in results) for side, results in found.items()}
    return [
        {
            "texts of ours": texts,
            "mean length": length if texts == "trimmed" else 77,
            "optimizer": update,
            "freed memory of ours": "kept" if side == KEPT else "handed back",
            "ours images/s": batch / statistics.median(mine),
            "open_clip images/s": batch / statistics.median(other),
            "ratio": ratio(other, mine),
            "ratio of least": min(other) / min(mine),
            "loss difference": difference,
        }
        | ({"ours peak MiB": peaks[side], "open_clip peak MiB": peaks[PEER]} if update == own else {})
        for texts, update, side, mine, other in lines
    ]


def main(name: str = "clip_training_step", variant: str = "clip_vit_b32", peer: str = "ViT-B-32-quickgelu") -> None:
    """Measure one variant.

    Args:
        name: of the benchmark that is recorded.
        variant: ours.
        peer: the same architecture in open_clip.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(variant=variant, peer=peer)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2, help="steps of each process, every one on other captions")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="two pairs, one step, one round; records nothing")
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "FOLDER"), help="measure once (used by itself)")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    use_threads(options.threads)
    if options.side:
        side, folder = options.side[0], Path(options.side[1])
        print(json.dumps(theirs(folder, peer) if side == PEER else ours(folder, variant, keep=side == KEPT)))
        return
    if options.quick:
        options.batch, options.repeats, options.rounds = 2, 1, 1
    with tempfile.TemporaryDirectory() as place:
        length = write(Path(place), options)
        found = measure(Path(place), name, options)
    rows = compare(found, options.batch, length)
    record(name, rows, f"python benchmarks/{name}.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
