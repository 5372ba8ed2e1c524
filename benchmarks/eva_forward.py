"""Forward pass of EVA-02's image towers in CLIP against timm's: same weights, same features, eager and compiled.

The share of the matmul peak is the time of the tower's operations at the best rate that this machine reached, in the
same minutes, on matrix products of the tower's own sizes, over the time that the tower took. With `memory kept` the
allocator does not hand back to the system what a layer freed, on either side (`_report.keep_freed_memory`). Compiled is
every block by itself.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Callable, Iterator

import open_clip
import torch
from _report import alternate, keep_freed_memory, ratio, record, seconds, use_threads
from _weights import copy_open_clip
from torch import Tensor, nn

import multimodal_zoo as zoo
from multimodal_zoo.analysis.flops import forward_flops
from multimodal_zoo.analysis.shadow import on_meta

TOWERS = {"eva_clip_b16": "EVA02-B-16", "eva_clip_l14": "EVA02-L-14"}
BATCHES = (4, 1)
ALLOWED = 1e-5  # of the largest feature


class Head(nn.Module):
    """Our image tower and its projection, what timm's model is too: `forward` computes every token, as timm does."""

    def __init__(self, model: nn.Module, only_class_token: bool = False) -> None:
        super().__init__()
        self.tower, self.projection, self.only_class_token = model.image, model.image_projection, only_class_token

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings of images, before they are normalised."""
        return self.projection(self.tower.pooled(images) if self.only_class_token else self.tower(images).pooled)


def pair(variant: str) -> tuple[nn.Module, nn.Module]:
    """Our model and timm's trunk as open_clip builds it, with one set of random weights."""
    torch.manual_seed(0)
    theirs = open_clip.create_model(TOWERS[variant]).eval()
    ours = zoo.create(variant).eval()
    copy_open_clip(theirs, ours)
    return ours, theirs.visual.trunk


def matmul_peak(tokens: int, width: int, hidden: int, repeats: int) -> float:
    """Best rate of the tower's matrix products, in operations per second."""
    best = 0.0
    for inner, outer in ((width, width), (width, hidden), (hidden, width), (width, 3 * width)):
        left, right, result = torch.randn(tokens, inner), torch.randn(outer, inner).T, torch.empty(tokens, outer)
        for _ in range(repeats):
            start = seconds()
            torch.mm(left, right, out=result)
            best = max(best, 2 * tokens * inner * outer / (seconds() - start))
    return best


def measure(
    rivals: dict[str, Callable[[Tensor], Tensor]], tower: nn.Module, batch: int, repeats: int
) -> dict[str, float | int]:
    """One line of the table."""
    images = torch.randn(batch, 3, tower.image_size, tower.image_size)
    expected = rivals["timm"](images)
    difference = max(float((call(images) - expected).abs().max() / expected.abs().max()) for call in rivals.values())
    assert difference < ALLOWED, f"the features differ by {difference}"
    tokens = batch * (1 + (tower.image_size // tower.patches.patch_size) ** 2)
    sizes = tokens, tower.width, tower.blocks.layers[0].mlp.gate.out_features
    peak = matmul_peak(*sizes, repeats=10)
    times = alternate({name: lambda call=call: call(images) for name, call in rivals.items()}, repeats, warm_up=0)
    peak = max(peak, matmul_peak(*sizes, repeats=10))
    ghost = on_meta(tower)
    operations = forward_flops(lambda: ghost(images.to("meta")))
    row: dict[str, float | int] = {"batch": batch}
    for name in ("ours", "timm"):
        row[f"{name} s, least"], row[f"{name} s, median"] = min(times[name]), statistics.median(times[name])
    row["ratio"] = ratio(times["timm"], times["ours"])
    row["ratio of least"] = min(times["timm"]) / min(times["ours"])
    if "class token" in times:
        row["ratio, class token only"] = ratio(times["timm"], times["class token"])
    row["peak GFLOP/s"] = peak / 1e9
    for name in ("ours", "timm"):
        row[f"{name} % of peak"] = 100 * operations / min(times[name]) / peak
    return row | {"relative difference": difference}


def lines(variants: list[str], batches: tuple[int, ...], repeats: int, modes: list[str]) -> Iterator[dict[str, object]]:
    """All lines: memory kept before compiled, because neither can be taken back."""
    pairs = {variant: pair(variant) for variant in variants}
    for mode in modes:
        if mode == "eager, memory kept":
            keep_freed_memory()
        for variant, (ours, trunk) in pairs.items():
            rivals: dict[str, nn.Module] = {"ours": Head(ours), "timm": trunk}
            if mode.startswith("compiled"):
                for block in (*ours.image.blocks.layers, *trunk.blocks):  # one graph serves all blocks of a tower
                    block.compile(dynamic=False)
            else:
                rivals["class token"] = Head(ours, only_class_token=True)
            for batch in batches[:1] if mode == "eager, memory kept" else batches:
                turns = repeats if variant.endswith("b16") else (repeats + 1) // 2
                yield {"tower": TOWERS[variant], "mode": mode, **measure(rivals, ours.image, batch, turns)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of B/16; L/14 gets half")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="B/16, one image, eager, once; records nothing")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that its weights are random
    use_threads(options.threads)
    with torch.no_grad():
        if options.quick:
            rows = list(lines(["eva_clip_b16"], (1,), 1, ["eager"]))
        else:
            rows = list(
                lines(list(TOWERS), BATCHES, options.repeats, ["eager", "eager, memory kept", "compiled, memory kept"])
            )
    record("eva_forward", rows, "python benchmarks/eva_forward.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
