"""Contrastive loss, forward and backward: peak memory and time against open_clip's ClipLoss."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

from _report import alternate, peak_mib, ratio, record, use_threads


def features(batch: int, width: int) -> tuple:
    import torch
    from torch.nn.functional import normalize

    torch.manual_seed(0)
    image, text = (normalize(torch.randn(batch, width), dim=-1).requires_grad_() for _ in range(2))
    return image, text, torch.tensor(14.3, requires_grad=True)


def rival(name: str) -> Callable:
    if name == "open_clip":
        from open_clip.loss import ClipLoss

        return ClipLoss()
    from multimodal_zoo.objectives.contrastive import contrastive_loss

    return lambda *inputs: contrastive_loss(*inputs).loss


def print_peak(name: str, batch: int, width: int) -> None:
    """MiB that loss and gradients take at their peak, above what the process holds before (the features)."""
    import torch

    use_threads(1)
    loss = rival(name)
    warm = features(64, width)
    torch.autograd.grad(loss(*warm), warm)  # loads what is loaded once
    inputs = features(batch, width)
    print(peak_mib(lambda: torch.autograd.grad(loss(*inputs), inputs)))


def peak(name: str, batch: int, width: int) -> float:
    command = [sys.executable, __file__, "--peak-of", name, "--batch", str(batch), "--width", str(width)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8192)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak-of", choices=["ours", "open_clip"], help="print one peak and leave (used by itself)")
    options = parser.parse_args()
    if options.peak_of:
        print_peak(options.peak_of, options.batch, options.width)
        return
    memory = {name: peak(name, options.batch, options.width) for name in ("ours", "open_clip")}

    import torch

    use_threads(options.threads)
    inputs = features(options.batch, options.width)
    losses = {name: rival(name) for name in memory}
    values = {name: torch.autograd.grad(loss(*inputs), inputs) for name, loss in losses.items()}
    worst = max(float((a - b).abs().max()) for a, b in zip(*values.values(), strict=True))
    assert worst < 1e-6, f"gradients differ by {worst}"
    del values
    calls = {name: lambda loss=loss: torch.autograd.grad(loss(*inputs), inputs) for name, loss in losses.items()}
    times = alternate(calls, options.repeats)
    rows = [
        {"loss": name, "peak MiB": round(memory[name], 1), "seconds": sorted(times[name])[len(times[name]) // 2]}
        for name in memory
    ]
    speed = ratio(times["open_clip"], times["ours"])
    rows.append({"loss": "ours / open_clip memory", "peak MiB": memory["ours"] / memory["open_clip"], "seconds": ""})
    rows.append({"loss": "open_clip / ours time", "peak MiB": "", "seconds": speed})
    record("contrastive_memory", rows, "python benchmarks/contrastive_memory.py")


if __name__ == "__main__":
    main()
