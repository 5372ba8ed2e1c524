"""A folder with a detector as one graph, and `export.json`, which says all that is needed to drive it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.checkpoints.writing import require_floats, require_free
from multimodal_zoo.export.detector import DetectorGraph, DetectorSizes
from multimodal_zoo.export.detector_facts import about
from multimodal_zoo.export.detector_files import Runner, load_graph, onnx_runner, write_graph
from multimodal_zoo.export.detector_int8 import drift, quantise
from multimodal_zoo.export.detector_samples import (
    DetectorSample,
    Difference,
    difference,
    eager_answer,
    graph_inputs,
    random_sample,
)
from multimodal_zoo.export.folder import FACTS, ExportMismatch, require_format
from multimodal_zoo.export.formats import FORMATS
from multimodal_zoo.files import atomic_folder, write_text

#: Random samples that a written graph is tried with.
TRIED = 2
#: Share of the boxes that may look the other way: their two halves of the yaw are nearly equally likely.
TURNED = 1e-3


def export_detector(
    model: FastBEV,
    out: str | Path,
    *,
    format: str = "onnx",
    calibration: str = "tables",
    sizes: DetectorSizes | None = None,
    rig: Tensor | None = None,
    samples: Sequence[DetectorSample] = (),
    int8: bool = False,
    tolerance: float = 1e-3,
) -> dict[str, Any]:
    """Write a detector in bird's-eye view as one graph, float32: images and earlier maps in, decoded boxes out.

    What is written is run on random samples and on the given ones and compared with the model; when it differs nothing
    is left behind.

    Args:
        model: on the CPU, in float32.
        out: the folder; one that exists must be empty.
        format: a name of `FORMATS`.
        calibration: a name of `export.detector.CALIBRATIONS`.
        sizes: cameras and pictures; None for those of the model's processor.
        rig: float64 (cameras, 4, 4), `lidar_to_image` of the cameras; for calibration `motion` only.
        samples: recorded ones.
        int8: whether a second file with convolutions in 8 bits is written, with ranges taken from `samples`; ONNX only.
        tolerance: the largest difference of a number of boxes, scores or maps that is accepted.

    Returns:
        What `export.json` holds.

    Raises:
        ExportMismatch: a difference above the tolerance.
        ValueError: a quantised model, an unknown format or calibration, cameras that do not fit, 8 bits without
            samples or in another format, or a folder in use.
        ModuleNotFoundError: a library of the format is missing.
    """
    require_floats(model, "export")
    require_format(format)
    if int8 and (format != "onnx" or not samples):
        raise ValueError("int8 needs format=onnx, and recorded samples to take ranges from")
    place = Path(out).resolve()
    require_free(place, "out")
    was = model.training
    graph = DetectorGraph(model, sizes or _sizes(model), calibration, rig).eval()
    try:
        with atomic_folder(place) as draft:
            facts = _written(graph, draft, format, list(samples), int8, tolerance)
            write_text(draft / FACTS, json.dumps(facts, indent=1, default=str) + "\n")
    finally:
        model.train(was)
    return facts


def _sizes(model: FastBEV) -> DetectorSizes:
    if model.processor is None:
        raise ValueError("the model has no processor that tells cameras and size of pictures; give sizes")
    return DetectorSizes(len(model.processor.cameras), *model.processor.size)


def _written(
    graph: DetectorGraph, folder: Path, format: str, samples: list[DetectorSample], int8: bool, tolerance: float
) -> dict[str, Any]:
    """Write the files and compare them; gives what `export.json` says."""
    path = folder / f"detector{FORMATS[format].suffix}"
    given = [graph_inputs(graph, one) for one in samples]  # what does not fit is said before anything is written
    write_graph(graph, path, format)
    run = load_graph(path, graph, format, torch.get_num_threads())
    tried = [random_sample(graph, seed) for seed in range(TRIED)]
    pairs = [*((one, graph_inputs(graph, one)) for one in tried), *zip(samples, given, strict=True)]
    found = [_compared(run(feed), eager_answer(graph.model, one), path.name, tolerance) for one, feed in pairs]
    weights = f"{path.name}.data"
    facts = {
        **about(graph),
        "format": format,
        "versions": {package: version(package) for package in ("multimodal_zoo", *FORMATS[format].packages)},
        "file": path.name,
        **({"weights_file": weights} if (folder / weights).is_file() else {}),
        "bytes": sum(file.stat().st_size for file in folder.glob(f"{path.name}*")),
        "tolerance": tolerance,
        "largest_difference": {
            name: max(getattr(one, name) for one in found) for name in ("boxes", "scores", "maps", "turned")
        },
    }
    if int8:
        facts["int8"] = _in_8_bits(graph, run, path, given)
    return facts


def _compared(answer: dict[str, Tensor], expected: dict[str, Tensor], name: str, tolerance: float) -> Difference:
    found = difference(answer, expected)
    if not found.largest <= tolerance or not found.turned <= TURNED:
        raise ExportMismatch(
            f"{name} differs from the model by {found.boxes:.3g} in boxes, {found.scores:.3g} in scores, "
            f"{found.maps:.3g} in maps, more than tolerance={tolerance:g}, or {found.turned:.2%} of the boxes look the "
            "other way; nothing was kept. A larger tolerance accepts it; please report the model"
        )
    return found


def _in_8_bits(graph: DetectorGraph, run: Runner, path: Path, given: list[dict[str, Tensor]]) -> dict[str, Any]:
    target = path.with_name(f"{path.stem}.int8{path.suffix}")
    quantise(path, target, given)
    small = onnx_runner(target, graph.outputs(), torch.get_num_threads())
    drifts = [drift(graph.model, small(one), run(one)) for one in given]
    return {
        "file": target.name,
        "bytes": target.stat().st_size,
        "ranges_from": f"{len(given)} recorded samples",
        "float": "head, view transform, and all that is no convolution",
        "drift": drifts,
    }
