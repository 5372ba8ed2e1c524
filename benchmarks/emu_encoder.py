"""One block of Emu2's image encoder at 448 pixels: fused attention against the released explicit softmax.

    python benchmarks/emu_encoder.py        # one thread: about half a minute of processor time

The published width of 1,792 with 16 heads, 1,025 tokens (32 x 32 patches and the class token), post-norm, random
weights, float32; the MLP has a quarter of its published width, since both sides have the same. "explicit" computes
q k^T, softmax and the product with v as separate steps, as the released configuration does (its fused kernels are off),
behind the same projections.

Memory is the most that a process of its own holds during the pass above what it holds before, with
MALLOC_MMAP_THRESHOLD_=65536, which makes glibc hand back what is freed. The scores alone of a picture take 16 * 1025^2
* 4 bytes = 64.1 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

import torch
from _report import peak_mib, record, seconds, use_threads
from torch import Tensor, nn

from multimodal_zoo.registry import build

SIDES = ("fused", "explicit")
WIDTH, HEADS, TOKENS, HIDDEN = 1792, 16, 1025, 3840
TOLERANCE = 1e-4


class Explicit(nn.Module):
    """The released way over the same projections: queries scaled, scores, softmax, product.

    Args:
        attention: whose weights it takes.
    """

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.qkv, self.out = attention.qkv, attention.out

    def forward(self, tokens: Tensor, **nothing: None) -> Tensor:
        """Mix tokens `(batch, tokens, width)`; there are no masks here."""
        query, key, value = self.qkv(tokens, None)
        weights = (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1)
        return self.out((weights @ value).transpose(1, 2).flatten(2))


def block_of(side: str) -> nn.Module:
    """The block; both sides have the same weights."""
    torch.manual_seed(0)
    qkv = {"type": "packed_qkv_keyless", "width": WIDTH, "heads": HEADS, "head_dim": WIDTH // HEADS}
    node = {
        "type": "post_norm_block",
        "norm": {"type": "layer_norm", "width": WIDTH, "eps": 1e-6},
        "attention": {"type": "self_attention", "width": WIDTH, "qkv": qkv},
        "mlp": {"type": "mlp", "width": WIDTH, "hidden": HIDDEN, "activation": "gelu"},
    }
    block = build(node, path="block").eval()
    if side == "explicit":
        block.attention = Explicit(block.attention)
    return block


@torch.no_grad()
def run(side: str, tokens: int, pictures: int) -> dict[str, Any]:
    """Memory and seconds of a pass in this process, and the sums of what it gives."""
    block = block_of(side)
    torch.manual_seed(1)
    states = torch.randn(pictures, tokens, WIDTH)
    block(states[:1, :16])  # loads what torch loads when it is first used
    found: list[Tensor] = []
    start = seconds()
    peak = peak_mib(lambda: found.append(block(states)))
    spent = seconds() - start
    return {"MiB": peak, "seconds": spent, "sums": found[0].sum(-1).flatten()[::97].tolist()}


def measure(side: str, options: argparse.Namespace) -> dict[str, Any]:
    """A pass in a process of its own."""
    words = ["--tokens", str(options.tokens), "--pictures", str(options.pictures), "--threads", str(options.threads)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--side", side, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="65 tokens; records nothing")
    parser.add_argument("--side", choices=SIDES, help="measure once (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.side:
        print(json.dumps(run(options.side, options.tokens, options.pictures)))
        return
    if options.quick:
        options.tokens = 65
    runs = {side: measure(side, options) for side in SIDES}
    pairs = zip(runs["fused"]["sums"], runs["explicit"]["sums"], strict=True)
    gap = max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)
    assert gap < TOLERANCE, f"the sides differ by {gap}"
    rows = [
        {
            "attention": side,
            "pictures": options.pictures,
            "tokens": options.tokens,
            "peak MiB": found["MiB"],
            "MiB of a picture": found["MiB"] / options.pictures,
            "times less": runs["explicit"]["MiB"] / found["MiB"],
            "seconds": found["seconds"],
            "differs by": gap if side == "fused" else 0.0,
        }
        for side, found in runs.items()
    ]
    record("emu_encoder", rows, "python benchmarks/emu_encoder.py", options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
