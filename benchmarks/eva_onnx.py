"""Latency of exported towers in onnxruntime against eager mode and torch.compile: same weights, same embeddings."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from _report import alternate, ratio, record, use_threads

import multimodal_zoo as zoo
from multimodal_zoo.export.folder import export
from multimodal_zoo.export.formats import FORMATS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", nargs="+", default=["eva_clip_tiny", "eva_clip_b16"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too (needs a C++ compiler)")
    options = parser.parse_args()
    use_threads(options.threads)
    rows: list[dict[str, str | float | int]] = []
    for variant in options.variants:
        model = zoo.create(variant).eval()
        with tempfile.TemporaryDirectory() as place, torch.inference_mode(False):
            facts = export(model, Path(place) / variant)
            for name in ("image", "text"):
                run = FORMATS["onnx"].load(Path(place) / variant / facts[name]["file"], options.threads)
                eager = model.encode_image if name == "image" else model.encode_text
                for batch in options.batches:
                    rows.append(measured(model, name, eager, run, batch, options))
                    rows[-1] = {"variant": variant, **rows[-1], "MiB": facts[name]["bytes"] / 2**20}
                    print(rows[-1])
    words = " ".join(f"--{key} {' '.join(map(str, value))}" for key, value in changed(parser, options).items())
    record("eva_onnx", rows, f"python benchmarks/eva_onnx.py {words}".strip())


def measured(model, name, eager, run, batch, options) -> dict[str, str | float | int]:  # type: ignore[no-untyped-def]
    """Milliseconds of each runtime for one batch, and the largest difference between their embeddings."""
    if name == "image":
        inputs = torch.randn(batch, 3, model.image.image_size, model.image.image_size)
    else:
        length = min(options.tokens, model.text.context_length)
        inputs = torch.randint(1, model.text.vocab_size - 1, (batch, length))
        inputs[:, -1] = model.text.vocab_size - 1
    rivals = {"eager": lambda: eager(inputs), "onnxruntime": lambda: run(inputs)}
    if options.compile:
        compiled = torch.compile(eager, fullgraph=True)
        rivals["compiled"] = lambda: compiled(inputs)
    with torch.no_grad():
        expected = eager(inputs)
        difference = max(float((call() - expected).abs().max()) for call in rivals.values())
        times = alternate(rivals, options.repeats)
    assert difference < 1e-4, f"the embeddings differ by {difference}"
    shown = {f"{rival} ms": 1000 * statistics.median(taken) for rival, taken in times.items()}
    ratios = {f"eager / {rival}": ratio(times["eager"], taken) for rival, taken in times.items() if rival != "eager"}
    return {"tower": name, "batch": batch, **shown, **ratios, "largest difference": difference}


def changed(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, list[object]]:
    """The options that are not at their defaults."""
    given = {key: value for key, value in vars(options).items() if value != parser.get_default(key)}
    return {key: value if isinstance(value, list) else [] if value is True else [value] for key, value in given.items()}


if __name__ == "__main__":
    main()
