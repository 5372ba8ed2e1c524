"""EVA-CLIP L/14 from one file: built on `meta`, memory-mapped and assigned, against torch.load and load_state_dict.

The rival builds the model with random weights, reads the file into memory and copies it; both are timed, the copy alone
too, as into a model that is there already. Ours starts from the name of the variant: composing its configuration,
recognising the file, checking every tensor's shape and building the model count. Random weights, published naming.
`dtype="auto"` keeps a half-precision file as it is; None widens it to float32, which has to read it. Memory is what the
process holds more, all pages and those that are no file's, until the first use.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _report import alternate, ratio, record, use_threads
from sharded_loading import watched

MIB = 2**20


def write(folder: Path, variant: str) -> None:
    """The same random weights as a pickle and as safetensors, in half and in full precision."""
    import torch
    from safetensors.torch import save_file

    from multimodal_zoo.checkpoints.tables import find_naming
    from multimodal_zoo.zoo import create

    state = find_naming("eva_clip").save(create(variant).state_dict())
    for kind in ("float16", "float32"):
        tensors = {name: tensor.to(getattr(torch, kind)).contiguous() for name, tensor in state.items()}
        torch.save(tensors, folder / f"{kind}.pt")
        save_file(tensors, folder / f"{kind}.safetensors")


def read(path: Path) -> dict:
    import torch
    from safetensors.torch import load_file

    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def built(state: dict, dtype) -> object:
    """A model that is built already, under the names of the file: what the rival copies into."""
    import torch

    root = torch.nn.Module()
    for name, tensor in state.items():
        module, (*path, leaf) = root, name.split(".")
        for part in path:
            if not hasattr(module, part):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_parameter(leaf, torch.nn.Parameter(torch.zeros(tensor.shape, dtype=dtype)))
    return root


def extra(path: Path, variant: str, dtype: str) -> dict[str, float]:
    """MiB that loading adds, in a process of its own."""
    from multimodal_zoo.zoo import create

    use_threads(1)
    create("eva_clip_tiny")  # imports what is imported once
    create(variant, device="meta")
    model, peaks = watched(lambda: create(variant, pretrained=path, dtype=None if dtype == "None" else dtype))
    del model
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="eva_clip_l14")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--extra", nargs=2, metavar=("FILE", "DTYPE"), help="print one peak (used by itself)")
    options = parser.parse_args()
    if options.extra:
        print(json.dumps(extra(Path(options.extra[0]), options.variant, options.extra[1])))
        return
    use_threads(options.threads)
    import torch

    from multimodal_zoo.zoo import create

    rows = []
    building = alternate({"build": lambda: create(options.variant)}, options.repeats)["build"]
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), options.variant)
        files = [f"{kind}.{end}" for kind in ("float16", "float32") for end in ("pt", "safetensors")]
        for file, dtype in (*((file, "auto") for file in files), ("float16.pt", None)):
            path = Path(name) / file
            half = file.startswith("float16") and dtype == "auto"
            receiver = built(read(path), torch.float16 if half else torch.float32)
            rivals = {
                "ours": lambda path=path, dtype=dtype: create(options.variant, pretrained=path, dtype=dtype),
                "plain": lambda path=path, receiver=receiver: receiver.load_state_dict(read(path)),
            }
            times = alternate(rivals, options.repeats)
            both = [a + b for a, b in zip(building, times["plain"], strict=True)]
            words = [sys.executable, __file__, "--variant", options.variant, "--extra", str(path), str(dtype)]
            peaks = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
            rows.append(
                {
                    "file": file,
                    "dtype": str(dtype),
                    "MB": path.stat().st_size / 1e6,
                    "ours s": sorted(times["ours"])[options.repeats // 2],
                    "plain s": sorted(times["plain"])[options.repeats // 2],
                    "build + plain s": sorted(both)[options.repeats // 2],
                    "plain / ours": ratio(times["plain"], times["ours"]),
                    "build + plain / ours": ratio(both, times["ours"]),
                    "extra MiB": peaks["resident"],
                    "of these anonymous MiB": peaks["anonymous"],
                }
            )
    record("eva_loading", rows, "python benchmarks/eva_loading.py")


if __name__ == "__main__":
    main()
