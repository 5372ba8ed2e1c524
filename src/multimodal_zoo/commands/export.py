"""`mmzoo export SOURCE out=FOLDER format=onnx|torch_export`: a model for other runtimes, checked at once.

Of a dual encoder both towers are written, of a detector one graph (`commands.export_detector`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

#: Largest accepted difference from eager mode in a value of an embedding, where none is given.
TOLERANCE = 1e-4


def run(config: DictConfig) -> float | None:
    """Export what the configuration names.

    Args:
        config: see `conf/base/export.yaml`.

    Raises:
        ExportMismatch: a written tower that differs from the model; nothing is left behind.
        ValueError: random weights, an unknown format or tower, a size that does not fit, or a folder in use.
        ModuleNotFoundError: a library of the format is missing.
    """
    from multimodal_zoo.bev.fast_bev import FastBEV
    from multimodal_zoo.commands.eval import load_model
    from multimodal_zoo.commands.export_detector import run_detector
    from multimodal_zoo.commands.machine import use_threads
    from multimodal_zoo.evaluation.environment import require_vectors
    from multimodal_zoo.export.folder import export, require_format

    require_format(config.format)
    size = sides(config.image_size)
    use_threads(config.threads)
    model = load_model(config, "export").float()
    if isinstance(model, FastBEV):
        run_detector(config, model)
        return None
    require_vectors(model, "export")
    facts = export(
        model,
        config.out,
        format=config.format,
        towers=list(config.towers),
        image_size=size,
        tolerance=TOLERANCE if config.tolerance is None else float(config.tolerance),
    )
    for name in config.towers:
        found = facts[name]
        shape = ", ".join(map(str, found["input"]["shape"]))
        print(
            f"{found['file']:<10} {found['input']['name']} ({shape}), {found['bytes'] / 2**20:,.1f} MiB, "
            f"differs from eager mode by {found['largest_difference']:.2g}"
        )
    print(f"folder: {Path(config.out).resolve()}")
    return None


def sides(size: Any) -> tuple[int, int] | None:
    """Height and width from a number, a pair or None.

    Raises:
        ValueError: anything else.
    """
    if size is None:
        return None
    pair = [size, size] if isinstance(size, int) else list(size) if not isinstance(size, str) else []
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(f"image_size: {size} must be a number of pixels, [height,width] or null")
    return pair[0], pair[1]
