"""Memory of one contrastive step of CLIP ViT-B/32 when features are cached, against encoding the batch at once."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from _report import peak_mib, record, seconds, use_threads

#: The allocator gives freed tensors back to the system at once, so that what the process holds is what is in use.
ENVIRONMENT = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}


def print_step(batch: int, chunk: int | None) -> None:
    """Peak MiB, seconds and loss of one step, as JSON."""
    import torch

    import multimodal_zoo as zoo
    from multimodal_zoo.objectives.batch import ImageTextBatch
    from multimodal_zoo.objectives.contrastive import ContrastiveObjective

    use_threads(1)
    torch.manual_seed(0)
    model = zoo.create("clip_vit_b32").train()
    ids = model.processor.texts([f"picture number {i} of many" for i in range(batch)])
    pairs = ImageTextBatch(torch.randn(batch, 3, 224, 224), ids, [str(i) for i in range(batch)])
    gradients = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    losses: list[float] = []
    first = ImageTextBatch(pairs.images[:1], ids[:1], ["0"])
    ContrastiveObjective()(model, first)["loss"].backward()  # loads what is loaded once
    model.zero_grad()

    def step() -> None:
        loss = ContrastiveObjective(chunk_size=chunk)(model, pairs)["loss"]
        loss.backward()
        losses.append(loss.item())

    start = seconds()
    peak = peak_mib(step)
    print(json.dumps({"peak MiB": peak, "of it gradients": gradients, "seconds": seconds() - start, "loss": losses[0]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--step", choices=["whole", "chunks"], help="print one step and leave (used by itself)")
    options = parser.parse_args()
    if options.step:
        print_step(options.batch, options.chunk if options.step == "chunks" else None)
        return
    rows = []
    for step in ("whole", "chunks"):
        command = [sys.executable, __file__, "--step", step]
        command += ["--batch", str(options.batch), "--chunk", str(options.chunk)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout
        name = f"batch {options.batch} at once" if step == "whole" else f"in chunks of {options.chunk}"
        rows.append({"step": name, **json.loads(printed.splitlines()[-1])})
    whole, chunks = rows
    keys = ("peak MiB", "of it gradients", "seconds", "loss")
    rows.append({"step": "ratio", **{key: chunks[key] / whole[key] for key in keys}})
    record("feature_caching", rows, "python benchmarks/feature_caching.py")


if __name__ == "__main__":
    main()
