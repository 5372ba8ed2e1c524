"""Emu3's visual tokenizer against transformers' (Emu3VQVAE): encode and decode of a still, same weights, same results.

The peer encodes four equal frames and decodes four, of which it keeps one. Codes must be the same wherever the nearest
two entries differ by more than rounding; pixels may differ by rounding. With `memory kept` the allocator does not hand
back to the system what a layer freed, on either side. Peak memory is that of a process of its own, above the weights.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from _report import alternate, keep_freed_memory, peak_mib, ratio, record, use_threads
from torch import Tensor

from multimodal_zoo.checkpoints.tables.emu3_vision import TRANSFORMERS_VISION
from multimodal_zoo.checkpoints.tables.emu3_vision_config import vision_node
from multimodal_zoo.registry import build

CLEAR = 1e-5  # squared distance of the two nearest entries above which codes must agree
ALLOWED = 1e-5  # of the largest pixel


def pair(width: int) -> tuple[Any, Any]:
    """Ours and the peer with one set of random weights, all settings but the width as published."""
    from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig
    from transformers.models.emu3.modeling_emu3 import Emu3VQVAE

    torch.manual_seed(0)
    theirs = Emu3VQVAE(Emu3VQVAEConfig(base_channels=width, hidden_size=4 * width)).eval()
    with torch.no_grad():  # codes that spread over the codebook
        theirs.quantize.embedding.weight.mul_(0.5)
    ours = build(vision_node({"ch": width})).eval()
    ours.load_state_dict(TRANSFORMERS_VISION.load(theirs.state_dict()))
    return ours, theirs


def rivals(ours: Any, theirs: Any, size: int) -> tuple[dict[str, dict[str, Callable[[], Tensor]]], Tensor]:
    """What is measured, by task and side, and how clear each code is; the results are compared first."""
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    sizes = torch.tensor([[size, size]])
    encode = {"ours": lambda: ours.encode(image), "transformers": lambda: theirs.encode(image, sizes).image_tokens[0]}
    codes = ours.encode(image)
    decode = {"ours": lambda: ours.decode(codes), "transformers": lambda: theirs.decode(codes)}
    return {"encode": encode, "decode": decode}, image


def check(ours: Any, tasks: dict[str, dict[str, Callable[[], Tensor]]], image: Tensor) -> dict[str, float]:
    """How far the sides agree.

    Raises:
        AssertionError: they do not.
    """
    codes, others = tasks["encode"]["ours"]()[0], tasks["encode"]["transformers"]()
    vectors = ours.latents(image)[0, :, 0].movedim(0, -1).flatten(0, 1)
    nearest = torch.cdist(vectors.double(), ours.quantizer.codebook.double()).square().topk(2, largest=False).values
    clear = (nearest[:, 1] - nearest[:, 0]).view(codes.shape) > CLEAR
    assert bool((codes == others)[clear].all()), "the codes differ where the nearest entry is clear"
    made, wanted = tasks["decode"]["ours"](), tasks["decode"]["transformers"]()
    difference = float((made - wanted).abs().max() / wanted.abs().max())
    assert difference < ALLOWED, f"the pixels differ by {difference}"
    return {"equal codes %": 100 * float((codes == others).float().mean()), "pixel difference": difference}


def lines(width: int, sizes: list[int], repeats: int) -> Iterator[dict[str, Any]]:
    """All lines of the table of seconds."""
    ours, theirs = pair(width)
    for mode in ("fresh memory", "memory kept"):
        if mode == "memory kept":
            keep_freed_memory()
        for size in sizes:
            tasks, image = rivals(ours, theirs, size)
            agreement = check(ours, tasks, image)
            for task, sides in tasks.items():
                times = alternate(sides, repeats, warm_up=0)
                yield {
                    "task": task,
                    "pixels": f"{size} x {size}",
                    "mode": mode,
                    "ours s": min(times["ours"]),
                    "transformers s": min(times["transformers"]),
                    "ratio": ratio(times["transformers"], times["ours"]),
                    "ratio of least": min(times["transformers"]) / min(times["ours"]),
                    "spread of ours s": max(times["ours"]) - statistics.median(times["ours"]),
                    **agreement,
                }


def memory(width: int, size: int, task: str, side: str) -> float:
    """Peak of one task in a process of its own, MiB."""
    words = [sys.executable, __file__, "--one", json.dumps([width, size, task, side])]
    return float(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1])


def one(width: int, size: int, task: str, side: str) -> None:
    """Print the peak of one task, MiB."""
    ours, theirs = pair(width)
    image = torch.rand(1, 3, size, size) * 2 - 1
    cells = size // 8
    codes = torch.randint(0, 32768, (1, cells, cells))
    sizes = torch.tensor([[size, size]])
    calls = {
        ("encode", "ours"): lambda: ours.encode(image),
        ("decode", "ours"): lambda: ours.decode(codes),
        ("encode", "transformers"): lambda: theirs.encode(image, sizes),
        ("decode", "transformers"): lambda: theirs.decode(codes),
    }
    print(peak_mib(calls[task, side]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, default=64, help="of the first convolution; published: 256")
    parser.add_argument("--sizes", type=int, nargs="*", default=[256])
    parser.add_argument("--memory-sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--own-memory-sizes", type=int, nargs="*", default=[1024], help="without the peer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="width 32, 64 pixels, once; records nothing")
    options = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    use_threads(options.threads)
    with torch.no_grad():
        if options.one:
            one(*json.loads(options.one))
            return
        if options.quick:
            record("emu3_tokenizer", list(lines(32, [64], 1)), "", keep=False)
            return
        rows = list(lines(options.width, options.sizes, options.repeats))
        for size in (*options.memory_sizes, *options.own_memory_sizes):
            for task in ("encode", "decode"):
                row: dict[str, Any] = {"task": task, "pixels": f"{size} x {size}", "mode": "peak memory"}
                row["ours MiB"] = memory(options.width, size, task, "ours")
                if size in options.memory_sizes:
                    row["transformers MiB"] = memory(options.width, size, task, "transformers")
                    row["ratio"] = row["transformers MiB"] / row["ours MiB"]
                rows.append(row)
    record("emu3_tokenizer", rows, "python benchmarks/emu3_tokenizer.py", options.threads)


if __name__ == "__main__":
    main()
