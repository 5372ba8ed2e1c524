"""`mmzoo export DETECTOR out=FOLDER calibration=tables|motion rig=FILE int8=[FILES]`: a detector as one graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

#: Largest accepted difference from eager mode of a detector's numbers, where none is given.
TOLERANCE = 1e-3


def run_detector(config: DictConfig, model: Any) -> None:
    """Export a detector in bird's-eye view.

    Args:
        config: see `conf/base/export.yaml`.
        model: in float32, with its processor.

    Raises:
        ExportMismatch: a written graph that differs from the model; nothing is left behind.
        FileNotFoundError: no such calibration file or picture.
        ValueError: options of dual encoders, cameras that do not fit, or a folder in use.
    """
    from multimodal_zoo.commands.speaking import listed
    from multimodal_zoo.data.camera_rig import read_rig
    from multimodal_zoo.export.detector_folder import export_detector
    from multimodal_zoo.export.detector_samples import recorded_sample

    if config.image_size is not None:
        raise ValueError(
            f"image_size: {config.image_size} is for towers of dual encoders; a detector's pictures have the size of "
            "model.processor.view.size"
        )
    paths = [Path(one) for one in ([] if config.rig is None else [config.rig])]
    if config.calibration == "motion" and not paths:
        raise ValueError("calibration=motion puts the rig into the graph: name its calibration file with rig=FILE")
    ranges = [] if config.int8 is None else [Path(one) for one in listed(config.int8)]
    samples = [recorded_sample(model, read_rig(path), path.parent) for path in ranges or paths]
    rig = None
    if config.calibration == "motion":
        rig = recorded_sample(model, read_rig(paths[0]), paths[0].parent).cameras.lidar_to_image[0, 0]
    facts = export_detector(
        model,
        config.out,
        format=config.format,
        calibration=config.calibration,
        rig=rig,
        samples=samples,
        int8=config.int8 is not None,
        tolerance=TOLERANCE if config.tolerance is None else float(config.tolerance),
    )
    _print(facts)
    print(f"folder: {Path(config.out).resolve()}")


def _print(facts: dict[str, Any]) -> None:
    most = facts["largest_difference"]
    print(
        f"{facts['file']}  {facts['bytes'] / 2**20:,.1f} MiB, differs from eager mode by {most['boxes']:.2g} in boxes, "
        f"{most['scores']:.2g} in scores"
    )
    for name, tensor in facts["inputs"].items():
        print(f"  in   {name:<10} {tensor['dtype']} ({', '.join(map(str, tensor['shape']))})")
    for name, tensor in facts["outputs"].items():
        print(f"  out  {name:<10} {tensor['dtype']} ({', '.join(map(str, tensor['shape']))})")
    if "int8" in facts:
        small = facts["int8"]
        worst = max(one["centre_mean"] for one in small["drift"])
        scores = max(one["score_largest"] for one in small["drift"])
        print(
            f"{small['file']}  {small['bytes'] / 2**20:,.1f} MiB, box centres move by {worst:.2g} m on average, scores "
            f"by at most {scores:.2g}"
        )
