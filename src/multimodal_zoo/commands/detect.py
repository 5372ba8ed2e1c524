"""`mmzoo detect SOURCE IMAGES CALIBRATION`: boxes around a car, in numbers and in pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from multimodal_zoo.files import atomic_file, write_text

if TYPE_CHECKING:
    from PIL.Image import Image

    from multimodal_zoo.inference.detection import SeenScene


def run(config: DictConfig) -> float | None:
    """Find the objects of one scene.

    Args:
        config: see `conf/base/detect.yaml`.

    Raises:
        FileNotFoundError: no such calibration or picture.
        ValueError: random weights that were not asked for, or a calibration that cannot be right.
        TypeError: a model that detects nothing.
    """
    from multimodal_zoo.commands.eval import load_model
    from multimodal_zoo.commands.machine import device_of, use_threads
    from multimodal_zoo.data.camera_rig import read_rig
    from multimodal_zoo.evaluation.environment import record_run
    from multimodal_zoo.inference.box_pictures import legend
    from multimodal_zoo.inference.detection import detect

    path = Path(config.calibration)
    root = path.parent if config.images is None else Path(config.images)
    if not root.is_dir():
        raise FileNotFoundError(f"images={root}: no such folder")
    info = read_rig(path, root)
    use_threads(config.threads)
    device = device_of(config.device)
    model = load_model(config, "detect").to(device)
    seen = detect(model, info, root, mirrored=config.mirrored)
    folder = Path(config.run.dir).resolve()
    record_run(folder, model)
    write_text(folder / "detections.json", json.dumps(seen.rows(), indent=1) + "\n")
    located = "ego2global" in json.loads(path.read_text(encoding="utf-8"))
    if located:
        _submit(folder, seen)
    if config.pictures:
        _draw(folder, seen, float(config.score))
    shown = seen.found.scores >= config.score
    print(f"{len(seen.found.scores)} boxes, of score {config.score} or more: {legend(seen.found.labels[shown])}")
    print(f"folder: {folder}")
    return None


def _submit(folder: Path, seen: SeenScene) -> None:
    from multimodal_zoo.evaluation.nuscenes_submission import submission_of

    write_text(folder / "submission.json", json.dumps(submission_of([(seen.info, seen.found)], seen.classes)) + "\n")


def _draw(folder: Path, seen: SeenScene, score: float) -> None:
    for name, picture in {**seen.pictures(score), "above": seen.above(score), "sheet": seen.sheet(score)}.items():
        _save(picture, folder / f"{name}.png")


def _save(picture: Image, path: Path) -> None:
    with atomic_file(path) as file:
        picture.save(file, format="PNG")
