"""A published Emu3 decoder folder of 1 GB in seven shards to a ready model: peak memory, and seconds.

Every measurement has a process of its own; the rivals alternate. The folder holds random weights in the published
naming. Imports come before the clock starts; seconds are the processor's. Memory is the most that the process holds
more than before, every page of every weight read; `private` is the part of it that is not the mapped file itself.

- ours: `from_pretrained(folder)`: recognising, building on `meta`, checking every name and shape, then shard by shard;
  a file in the wanted precision is mapped, one of half precision is widened tensor by tensor.
- plain: the same model built with random weights, all shards read, `load_state_dict`.
- transformers: `Emu3ForCausalLM.from_pretrained` of the installed version, from the same tensors.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _report import _status, record, use_threads

SIZES = {
    "vocab_size": 65536, "hidden_size": 1024, "intermediate_size": 3584, "num_hidden_layers": 10,
    "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 9216, "pad_token_id": 32557,
    "attention_dropout": 0.1, "rms_norm_eps": 1e-5, "rope_theta": 1e6,
}  # fmt: skip
QUICK = {**SIZES, "vocab_size": 640, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
         "num_attention_heads": 4, "pad_token_id": 300}  # fmt: skip
SHARDS = 7


def write(folder: Path, sizes: dict[str, Any]) -> None:
    """The same random weights in float32 and in bfloat16, each with both configurations."""
    import torch

    from multimodal_zoo.checkpoints.convert import write_published
    from multimodal_zoo.checkpoints.tables.emu3_config import published_node
    from multimodal_zoo.zoo import build_model

    model = build_model(published_node({"model_type": "Emu3", **sizes}))
    for kind in ("float32", "bfloat16"):
        model.to(getattr(torch, kind))
        size = sum(parameter.nbytes for parameter in model.parameters())
        place = write_published(model, folder / kind, "emu3", shard_size=size // SHARDS)
        theirs = {**sizes, "model_type": "emu3_text_model", "architectures": ["Emu3ForCausalLM"], "dtype": kind}
        shutil.copytree(place, folder / f"{kind}_theirs")
        (folder / f"{kind}_theirs" / "config.json").write_text(json.dumps(theirs))


def ours(folder: Path, dtype: str) -> Any:
    """The library's way."""
    from multimodal_zoo.zoo import from_pretrained

    return lambda: from_pretrained(folder, dtype=dtype)


def plain(folder: Path, dtype: str) -> Any:
    """Building, reading, copying."""
    import torch
    from safetensors.torch import load_file

    from multimodal_zoo.checkpoints.configs import node_of
    from multimodal_zoo.checkpoints.tables.emu3 import EMU3
    from multimodal_zoo.zoo import build_model

    def load() -> Any:
        """The whole file in memory beside the whole model."""
        model = build_model(node_of(folder / "config.json")).to(getattr(torch, dtype))
        state: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            state.update(load_file(file))
        model.load_state_dict(EMU3.load(state))
        return model

    return load


def transformers(folder: Path, dtype: str) -> Any:
    """The peer's way."""
    from transformers import Emu3ForCausalLM

    return lambda: Emu3ForCausalLM.from_pretrained(folder.with_name(f"{folder.name}_theirs"), dtype=dtype)


SIDES = {"ours": ours, "plain": plain, "transformers": transformers}


def measure(side: str, folder: Path, dtype: str) -> dict[str, float]:
    """Load once, read every page."""
    import torch

    load = SIDES[side](folder, dtype)
    small = SIDES[side](folder.with_name(f"small_{folder.name}"), dtype)
    small()  # imports what is imported once
    torch.ones(2).sum()
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
    before, private, start = _status("VmRSS"), _status("RssAnon"), time.process_time()
    model = load()
    took, untouched = time.process_time() - start, _status("VmRSS") - before
    for tensor in model.state_dict().values():
        tensor.view(-1)[:: 4096 // tensor.element_size()].sum()  # a value of every page
    peak = _status("VmHWM") - before
    private = _status("RssAnon") - private
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
    return {
        "seconds": took,
        "untouched MiB": untouched / 1024,
        "peak MiB": peak / 1024,
        "private MiB": private / 1024,
    }


def compare(folder: Path, kind: str, dtype: str, options: argparse.Namespace) -> list[dict[str, str | float]]:
    """A line for each rival: medians of alternating processes."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(options.repeats):
        for side in SIDES:
            words = [sys.executable, __file__, "--threads", str(options.threads), "--side", side]
            done = subprocess.run([*words, str(folder / kind), dtype], check=True, capture_output=True, text=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))
    size = sum(file.stat().st_size for file in (folder / kind).glob("*.safetensors")) / 2**20
    wanted = size * (2 if dtype != kind else 1)
    rows = []
    for side, some in found.items():
        row: dict[str, str | float] = {"files": f"{kind}, {size:.0f} MiB", "loaded as": dtype, "way": side}
        row |= {key: statistics.median(one[key] for one in some) for key in some[0]}
        row["peak / weights"] = float(row["peak MiB"]) / wanted
        row["seconds / ours"] = statistics.median(
            one["seconds"] / mine["seconds"] for one, mine in zip(some, found["ours"], strict=True)
        )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, once; records nothing")
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "FOLDER", "DTYPE"), help="measure once (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.side:
        side, folder, dtype = options.side
        print(json.dumps(measure(side, Path(folder), dtype)))
        return
    options.repeats = 1 if options.quick else options.repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, QUICK if options.quick else SIZES)
        write(folder / "small", QUICK)
        for place in (folder / "small").iterdir():
            place.rename(folder / f"small_{place.name}")
        asked = [("float32", "float32"), ("bfloat16", "float32"), ("bfloat16", "bfloat16")]
        rows = [row for kind, dtype in asked for row in compare(folder, kind, dtype, options)]
    command = "python benchmarks/emu3_loading.py"
    record("emu3_loading", rows, command, threads=options.threads, keep=not options.quick)


if __name__ == "__main__":
    main()
