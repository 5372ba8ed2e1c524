"""EVA-CLIP L/14 from one file to a ready model, against building it and torch.load with load_state_dict.

Every measurement has a process of its own; the rivals alternate. Imports come before the clock starts; seconds are the
processor's. Each file holds random weights in the published naming.

- ours: `create(variant, pretrained=file)`: composing the configuration, recognising the file, building on `meta`,
  checking every name and shape, mapping and assigning. `dtype="auto"` keeps the file's precision; a file of half
  precision loaded as float32 is widened, so all of it is read and written.
- plain: the same model built with its random weights in float32, the file read into memory (`torch.load`, or
  `load_file` of safetensors), `load_state_dict`; putting our names in the place of the file's is not timed.
- open_clip: likewise with `open_clip.create_model` and a file in its own naming.
- alone: only the loading, into a model that is built already and stays in float32; both sides copy then.

Memory is the most that the process holds more than before, until the first use.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _report import _status, record, use_threads

PEER = "EVA02-L-14"


def write(folder: Path, variant: str, peer: bool) -> None:
    """The same random weights as a pickle and as safetensors, in half and in full precision; and open_clip's."""
    import torch
    from safetensors.torch import save_file

    from multimodal_zoo.checkpoints.tables import find_naming
    from multimodal_zoo.zoo import create

    state = find_naming("eva_clip").save(create(variant).state_dict())
    for kind in ("float16", "float32"):
        tensors = {name: tensor.to(getattr(torch, kind)).contiguous() for name, tensor in state.items()}
        torch.save(tensors, folder / f"{kind}.pt")
        save_file(tensors, folder / f"{kind}.safetensors")
    if peer:
        import open_clip

        model = open_clip.create_model(PEER)
        torch.save({name: tensor.half() for name, tensor in model.state_dict().items()}, folder / "open_clip.pt")


def read(path: Path) -> dict:
    """All tensors in memory."""
    import torch
    from safetensors.torch import load_file

    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


class Watch:
    """Processor seconds, and MiB held more at most, of what happens inside."""

    def __enter__(self) -> Watch:
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
        self._before, self._start = _status("VmRSS"), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.process_time() - self._start
        self.mib = (_status("VmHWM") - self._before) / 1024


def ours(path: Path, variant: str, dtype: str | None) -> dict[str, float]:
    """From file to ready model, then into a model that is built already."""
    from multimodal_zoo.checkpoints.store import load_weights
    from multimodal_zoo.zoo import create

    create(variant, device="meta")  # imports what is imported once
    with Watch() as whole:
        model = create(variant, pretrained=path, dtype=dtype)
    model = create(variant)
    with Watch() as alone:
        load_weights(model, path)
    return {"whole": whole.seconds, "MiB": whole.mib, "alone": alone.seconds}


def plain(path: Path, variant: str, dtype: str | None) -> dict[str, float]:
    """Building with random weights, reading, copying."""
    from multimodal_zoo.checkpoints.tables import find_naming
    from multimodal_zoo.zoo import create

    create(variant, device="meta")
    with Watch() as build:
        model = create(variant)
    with Watch() as reading:
        state = read(path)
    state = find_naming("eva_clip").load(state)
    with Watch() as copying:
        model.load_state_dict(state)
    alone = reading.seconds + copying.seconds
    return {"whole": build.seconds + alone, "MiB": build.mib + reading.mib, "alone": alone}


def peer(path: Path, variant: str, dtype: str | None) -> dict[str, float]:
    """The plain way with open_clip's model."""
    import open_clip

    open_clip.create_model("ViT-B-32")  # imports what is imported once
    with Watch() as build:
        model = open_clip.create_model(PEER)
    with Watch() as alone:
        model.load_state_dict(read(path))
    return {"whole": build.seconds + alone.seconds, "MiB": build.mib + alone.mib, "alone": alone.seconds}


SIDES = {"ours": ours, "plain": plain, "open_clip": peer}


def compare(folder: Path, file: str, dtype: str, options: argparse.Namespace) -> dict[str, str | float]:
    """One line of the table: medians of alternating processes."""
    sides = {"ours": file, "plain": file, **({"open_clip": "open_clip.pt"} if file == "float16.pt" else {})}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(options.repeats):
        for side, name in sides.items():
            words = [sys.executable, __file__, "--variant", options.variant, "--threads", str(options.threads)]
            words += ["--side", side, str(folder / name), dtype]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            found[side].append(json.loads(done.stdout.splitlines()[-1]))

    def middle(side: str, key: str) -> float:
        """The median of one side's figures; nothing where it was not measured."""
        return statistics.median(one[key] for one in found[side]) if side in found else float("nan")

    row: dict[str, str | float] = {"file": file, "loaded as": dtype if dtype != "auto" else file.split(".")[0]}
    for key, what in (("whole", "to a ready model, s"), ("alone", "alone, s"), ("MiB", "extra MiB")):
        row |= {f"{side} {what}": middle(side, key) for side in sides}
    row |= {
        f"{side} / ours, ready": middle(side, "whole") / middle("ours", "whole") for side in sides if side != "ours"
    }
    row["plain / ours, alone"] = middle("plain", "alone") / middle("ours", "alone")
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="eva_clip_l14")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "FILE", "DTYPE"), help="measure once (used by itself)")
    options = parser.parse_args()
    use_threads(options.threads)
    if options.side:
        side, file, dtype = options.side
        print(json.dumps(SIDES[side](Path(file), options.variant, dtype)))
        return
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), options.variant, peer=True)
        files = [f"{kind}.{end}" for kind in ("float16", "float32") for end in ("pt", "safetensors")]
        asked = [*((file, "auto") for file in files), ("float16.pt", "float32")]
        rows = [compare(Path(name), file, dtype, options) for file, dtype in asked]
    record("eva_loading", rows, "python benchmarks/eva_loading.py", threads=options.threads)


if __name__ == "__main__":
    main()
