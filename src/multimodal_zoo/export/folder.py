"""A folder with both towers in one format and `export.json`, which says all that is needed to use them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from multimodal_zoo.checkpoints.writing import require_floats, require_free
from multimodal_zoo.export.formats import FORMATS, missing
from multimodal_zoo.export.towers import Tower, image_tower, text_tower
from multimodal_zoo.files import atomic_folder, write_text

FACTS = "export.json"
#: Batches and text lengths (as shares of the context) that a written file is tried with.
TRIED = ((1, 1.0), (3, 0.5), (2, 0.0))
TOWERS = ("image", "text")


class ExportMismatch(ValueError):
    """An exported file computes something else than the model."""


def require_format(name: str) -> None:
    """Make sure that a format exists and that its libraries are installed.

    Raises:
        ValueError: an unknown one.
        ModuleNotFoundError: a library is missing.
    """
    if name not in FORMATS:
        raise ValueError(f"format: {name!r} is unknown; choose one of {', '.join(FORMATS)}")
    if name == "onnx":
        missing("onnx", "onnxscript", "onnxruntime")


def export(
    model: nn.Module,
    out: str | Path,
    *,
    format: str = "onnx",
    towers: Sequence[str] = TOWERS,
    image_size: tuple[int, int] | None = None,
    tolerance: float = 1e-4,
) -> dict[str, Any]:
    """Write the towers of a dual encoder, each with its projection and normalisation, as float32.

    What is written is run and compared with the model; when it differs nothing is left behind.

    Args:
        model: a dual encoder with its processor, on the CPU, in float32.
        out: the folder; one that exists must be empty.
        format: a name of `FORMATS`.
        towers: which of `TOWERS`.
        image_size: height and width of the images that the graph takes; None for the tower's own.
        tolerance: the largest difference of an embedding's value that is accepted.

    Returns:
        What `export.json` holds.

    Raises:
        ExportMismatch: a difference above the tolerance.
        ValueError: a quantised model, an unknown format or tower, or a folder in use.
        ModuleNotFoundError: a library of the format is missing.
    """
    require_floats(model, "export")
    require_format(format)
    if not towers or not set(towers) <= set(TOWERS):
        raise ValueError(f"towers: {list(towers)} must be some of {', '.join(TOWERS)}")
    place = Path(out).resolve()
    require_free(place, "out")
    built = [_tower(model, name, image_size) for name in towers]
    with atomic_folder(place) as draft:
        found = {tower.name: _write(tower, draft, format, tolerance) for tower in built}
        facts = {**_about(model, format), "tolerance": tolerance, **found}
        if image_size is not None:
            facts["preprocessing"]["size"] = image_size
        write_text(draft / FACTS, json.dumps(facts, indent=1, default=str) + "\n")
    return facts


def _tower(model: nn.Module, name: str, image_size: tuple[int, int] | None) -> Tower:
    if name == "text":
        tower = text_tower(model)
    else:
        side = int(model.image.image_size)  # type: ignore[union-attr,arg-type]
        tower = image_tower(model, *(image_size or (side, side)))
    with torch.no_grad():
        tower.module(tower.probe({"batch": 1, "tokens": 1}))  # a size that does not fit is said in our words
    return tower


def _write(tower: Tower, folder: Path, format: str, tolerance: float) -> dict[str, Any]:
    """Write one tower and compare it with eager mode; gives what `export.json` says of it."""
    path = folder / f"{tower.name}{FORMATS[format].suffix}"
    FORMATS[format].write(tower, path)
    difference = largest_difference(tower, path, format)
    if not difference <= tolerance:
        raise ExportMismatch(
            f"{path.name} differs from the model by {difference:.3g}, more than tolerance={tolerance:g}; nothing was "
            "kept. A larger tolerance accepts it; please report the model"
        )
    weights = f"{path.name}.data"
    return {
        "file": path.name,
        **({"weights_file": weights} if (folder / weights).is_file() else {}),
        "input": {"name": tower.input, "shape": tower.shape, "dtype": "float32" if tower.name == "image" else "int64"},
        "limits": {name: most for name, most in tower.limits.items() if most is not None},
        "output": {"name": tower.output, "normalised": True, "dtype": "float32"},
        "largest_difference": difference,
        "bytes": sum(file.stat().st_size for file in folder.glob(f"{path.name}*")),
    }


def largest_difference(tower: Tower, path: Path, format: str) -> float:
    """The largest difference between a file and its tower in eager mode, over several batches and lengths."""
    run = FORMATS[format].load(path, torch.get_num_threads())
    worst = 0.0
    for seed, (batch, share) in enumerate(TRIED):
        sizes = {"batch": batch, "tokens": max(1, round(share * (tower.limits.get("tokens") or 1)))}
        probe = tower.probe(sizes, seed)
        with torch.no_grad():
            difference = (run(probe) - tower.eager(probe)).abs().max()
        worst = max(worst, float(difference)) if torch.isfinite(difference) else float("inf")
    return worst


def _scale(model: nn.Module) -> float | None:
    if not hasattr(model, "scale"):
        return None
    with torch.no_grad():
        return float(model.scale())  # type: ignore[operator]


def _about(model: nn.Module, format: str) -> dict[str, Any]:
    """Model, preprocessing, tokenizer and versions."""
    config: dict[str, Any] = getattr(model, "config", {})
    node = config.get("processor") or {}
    tokenizer = getattr(getattr(model, "processor", None), "tokenizer", None)
    ids = {key: getattr(tokenizer, key) for key in ("start_id", "end_id", "pad_id") if hasattr(tokenizer, key)}
    return {
        "format": format,
        "variant": getattr(model, "variant", None),
        "weights": getattr(model, "weights", "unknown"),
        "embed_dim": getattr(model, "embed_dim", None),
        "logit_scale": _scale(model),
        "preprocessing": {**dict(node.get("images") or {}), "channels": "RGB", "scaled": "(x / 255 - mean) / std"},
        "tokenizer": {**dict(node.get("texts") or {}), **ids},
        "versions": {package: version(package) for package in ("multimodal_zoo", *FORMATS[format].packages)},
    }
