"""Peak memory of loading a sharded checkpoint of 1 GB: the model and one shard, never the whole twice.

A model of EVA-CLIP-18B's pattern is written in shards, in the original and the Hub's naming (there queries, keys and
values are three tensors, which ours packs, and a shard ends between them), as safetensors and as pickles. Each is then
loaded in a process of its own, onto `meta`, and the peak is compared with the model's bytes and the largest shard's,
for resident and for anonymous memory. The bound: no peak is above the model and 1.15 times the largest shard.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from _report import _status, record

NAMINGS = {"original": "eva_clip", "hub": "hf_eva_clip"}
MIB = 2**20


def overrides(width: int, depth: int) -> list[str]:
    """EVA-CLIP-18B, smaller: heads of 64 and an MLP five times as wide as the tokens."""
    tower = {
        "width": width,
        "blocks.depth": depth,
        "blocks.block.attention.qkv.heads": width // 64,
        "blocks.block.attention.qkv.head_dim": 64,
        "blocks.block.mlp.hidden": 5 * width,
    }
    text = {"width": 256, "blocks.depth": 2, "blocks.block.attention.qkv.heads": 4, "blocks.block.mlp.hidden": 1024}
    words = {**{f"image.{k}": v for k, v in tower.items()}, **{f"text.{k}": v for k, v in text.items()}}
    return [f"model.{key}={value}" for key, value in words.items()]


def write(folder: Path, naming: str, suffix: str, dtype: str, count: int, options: argparse.Namespace) -> None:
    """One sharded checkpoint with random numbers, its index beside it."""
    import torch
    from safetensors.torch import save_file

    from multimodal_zoo.checkpoints.tables import find_naming
    from multimodal_zoo.zoo import create

    model = create("eva_clip_18b", overrides=overrides(options.width, options.depth))
    torch.nn.init.constant_(model.logit_scale.weight, math.log(100))  # what the Hub's naming stands for
    state = {
        name: tensor.contiguous() for name, tensor in find_naming(NAMINGS[naming]).save(model.state_dict()).items()
    }
    state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in state.items()}
    size = sum(tensor.nbytes for tensor in state.values())
    shards: list[dict] = [{}]
    for name, tensor in state.items():
        full = sum(t.nbytes for t in shards[-1].values()) >= size / count
        if full and not (naming == "hub" and not name.endswith(("k_proj.weight", "v_proj.weight"))):
            shards.append({})  # the Hub's shards end between a query and its key
        shards[-1][name] = tensor
    stem, end = ("model", "safetensors") if suffix == "safetensors" else ("pytorch_model", "bin")
    placed = {}
    for i, shard in enumerate(shards):
        file = f"{stem}-{i + 1:05}-of-{len(shards):05}.{end}"
        save_file(shard, folder / file) if end == "safetensors" else torch.save(shard, folder / file)
        placed.update(dict.fromkeys(shard, file))
    (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def watched(call) -> tuple[object, dict[str, float]]:
    """What a call gives, and its peaks in MiB above the start: all resident pages, and those that are no file's."""
    Path("/proc/self/clear_refs").write_text("5")
    start = {key: _status(key) for key in ("VmRSS", "RssAnon")}
    most, done = [start["RssAnon"]], threading.Event()

    def look() -> None:
        while not done.is_set():
            most[0] = max(most[0], _status("RssAnon"))
            time.sleep(0.002)

    watcher = threading.Thread(target=look)
    watcher.start()
    result = call()
    done.set()
    watcher.join()
    most[0] = max(most[0], _status("RssAnon"))
    return result, {
        "resident": (_status("VmHWM") - start["VmRSS"]) / 1024,
        "anonymous": (most[0] - start["RssAnon"]) / 1024,
    }


def load(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Peaks of loading, in MiB, with every page of the model touched at the end."""
    import torch

    from multimodal_zoo.zoo import create

    torch.set_num_threads(1)
    create("eva_clip_tiny")  # imports what is imported once
    words = overrides(options.width, options.depth)
    create("eva_clip_18b", overrides=words, device="meta")

    def run() -> torch.nn.Module:
        model = create("eva_clip_18b", pretrained=folder, overrides=words, dtype=options.loaded)
        for parameter in model.parameters():
            parameter.detach().sum()
        return model

    begin = time.perf_counter()
    model, peaks = watched(run)
    seconds = time.perf_counter() - begin
    return {**peaks, "model": sum(p.nbytes for p in model.parameters()) / MIB, "seconds": seconds}


def measure(naming: str, suffix: str, dtype: str, shards: int, options: argparse.Namespace) -> dict:
    """One line of the table: a checkpoint is written here and loaded in a new process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, naming, suffix, dtype, shards, options)
        files = [file.stat().st_size / MIB for file in folder.iterdir() if file.suffix != ".json"]
        words = [sys.executable, __file__, "--load", name, "--loaded", options.loaded]
        words += ["--width", str(options.width), "--depth", str(options.depth)]
        found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    row = {"shards": len(files), "files": f"{naming}, {dtype}, {suffix}", "model MiB": found["model"]}
    row["largest shard MiB"] = max(files)
    for kind in ("resident", "anonymous"):
        row[f"peak {kind} MiB"] = found[kind]
        row[f"{kind} beyond the model / shard"] = (found[kind] - found["model"]) / max(files)
    row["bound of 1.15 holds"] = (
        "yes" if max(found["resident"], found["anonymous"]) <= found["model"] + 1.15 * max(files) else "no"
    )
    return {**row, "seconds": found["seconds"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=17)
    parser.add_argument("--shards", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16"], help="of the files")
    parser.add_argument("--loaded", default="auto", help="dtype of the model; auto is the files'")
    parser.add_argument("--load", type=Path, help="load one folder and print its peaks (used by itself)")
    options = parser.parse_args()
    if options.load:
        print(json.dumps(load(options.load, options)))
        return
    rows = [
        measure(naming, suffix, dtype, shards, options)
        for shards in options.shards
        for dtype in options.dtypes
        for naming in NAMINGS
        for suffix in ("safetensors", "bin")
    ]
    record("sharded_loading", rows, "python benchmarks/sharded_loading.py")


if __name__ == "__main__":
    main()
