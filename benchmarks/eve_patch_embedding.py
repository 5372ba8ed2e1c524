"""EVE v1's patch embedding layer: packed cells of the pictures alone, against convolutions over square canvases.

    python benchmarks/eve_patch_embedding.py          # one thread: about two minutes

The published sizes without the projector, which is the same on both sides: 1,024 wide, patches of 14 pixels, cells of
2 x 2, canvases of 672 pixels; random weights, float32. The rival goes picture by picture, as the published code does:
a convolution over the whole canvas, the crop, windows cut out of the plane, attention from its matrix products. Outputs
must agree, and gradients of the weights relative to the largest entry of each.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from _report import alternate, ratio, record, use_threads
from torch import Tensor

from multimodal_zoo.encoders.eve_embedding import EvePatchEmbedding, PooledAttention
from multimodal_zoo.nn.masked_canvas import cells_of_canvas, valid_box
from multimodal_zoo.nn.patch_cells import joined, rows_closed

HIDDEN, PATCH, WINDOW, SIDE = 1024, 14, 2, 672
#: Rows and columns of a teacher's patches; each is 2 x 2 patches here.
MIXES = {
    "one of 16:9": [(14, 24)],
    "one square": [(24, 24)],
    "16:9, 4:3, 3:4, 1:3": [(14, 24), (18, 24), (24, 18), (24, 8)],
}
TOLERANCE = 1e-4


def canvas(rows: int, columns: int) -> Tensor:
    """A picture in the middle of a canvas, with its mask, (4, side, side)."""
    mask = torch.zeros(1, SIDE, SIDE)
    high, wide = 2 * PATCH * rows, 2 * PATCH * columns
    top, left = ((24 - part) // 2 * 2 * PATCH for part in (rows, columns))
    mask[:, top : top + high, left : left + wide] = 1
    return torch.cat((torch.randn(3, SIDE, SIDE), mask))


def explicit(part: PooledAttention, query: Tensor, keys: Tensor) -> Tensor:
    """One query (n, width) for each set of keys (n, keys, width), logits and all."""
    asked = part.query(part.query_norm(query)).unflatten(-1, (part.heads, 1, -1))
    key, value = part.key_value(part.key_norm(keys)).unflatten(-1, (2, part.heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (asked @ key.transpose(-1, -2) * part.width**-0.5).softmax(-1)
    return query + part.proj((weights @ value).flatten(1))


def by_convolution(layer: EvePatchEmbedding, canvases: list[Tensor]) -> Tensor:
    """Tokens of all pictures, from their canvases one by one."""
    found = []
    for one in canvases:
        plane = F.conv2d(one[None, :3], layer.patches.weight, stride=PATCH)
        box = valid_box(one[3], PATCH)
        assert box is not None
        top, left, rows, columns = box
        plane = plane[:, :, top : top + rows, left : left + columns]
        grid = (rows // WINDOW, columns // WINDOW)
        mean = F.avg_pool2d(plane, WINDOW)[0].flatten(1).T
        windows = F.unfold(plane, WINDOW, stride=WINDOW)[0].T.unflatten(1, (HIDDEN, -1)).transpose(1, 2)
        cells = explicit(layer.local_attention, mean, windows)
        first = explicit(layer.global_attention, layer.class_token[None], cells[None])
        found.append(rows_closed(cells, [grid], first, layer.split_token))
    return torch.cat(found)


def by_cells(layer: EvePatchEmbedding, canvases: list[Tensor]) -> Tensor:
    """Tokens of all pictures at once."""
    return layer.unprojected(joined([cells_of_canvas(one, PATCH, WINDOW) for one in canvases]))


def step(call: Callable[..., Tensor], layer: EvePatchEmbedding, canvases: list[Tensor]) -> list[Tensor]:
    """Output, and gradients of the weights."""
    output = call(layer, canvases)
    used = [weight for name, weight in layer.named_parameters() if not name.startswith("projector")]
    return [output.detach(), *torch.autograd.grad(output.square().mean(), used)]


def forward(call: Callable[..., Tensor], layer: EvePatchEmbedding, canvases: list[Tensor]) -> Tensor:
    """Output alone."""
    with torch.no_grad():
        return call(layer, canvases)


def measure(name: str, repeats: int) -> list[dict[str, Any]]:
    """One line for the forward pass and one for both passes."""
    torch.manual_seed(0)
    layer = EvePatchEmbedding(width=8, hidden=HIDDEN, patch=PATCH, window=WINDOW)
    canvases = [canvas(*size) for size in MIXES[name]]
    ours, theirs = (step(call, layer, canvases) for call in (by_cells, by_convolution))
    gaps = [float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True)]
    assert max(gaps) < TOLERANCE, f"{name}: outputs and gradients differ by {gaps}"
    rows = []
    for way, run in (("forward", forward), ("forward and backward", step)):
        calls = {"cells": by_cells, "canvas": by_convolution}
        times = alternate({side: partial(run, call, layer, canvases) for side, call in calls.items()}, repeats)
        rows.append(
            {
                "pictures": name,
                "pass": way,
                "cells, milliseconds": 1000 * statistics.median(times["cells"]),
                "canvas, milliseconds": 1000 * statistics.median(times["canvas"]),
                "canvas / cells": ratio(times["canvas"], times["cells"]),
                "differ by": gaps[0] if way == "forward" else max(gaps),
            }
        )
    return rows


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="one repeat of one mix; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    names = list(MIXES)[:1] if options.quick else list(MIXES)
    rows = [row for name in names for row in measure(name, 1 if options.quick else options.repeats)]
    command = "python benchmarks/eve_patch_embedding.py"
    record("eve_patch_embedding", rows, command, options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
