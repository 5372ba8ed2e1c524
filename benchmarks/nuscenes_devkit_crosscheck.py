"""Our detection metrics, tables and submissions against nuscenes-devkit, which runs in a throwaway environment.

The devkit declares numpy below 2, so it cannot share an environment with this library; without its dependencies it runs
beside numpy 2.4 unchanged. It opens the tables that `mmzoo data synth-nuscenes` makes, reads two submissions of ours
(annotated boxes with noise, misses, wrong classes and equal scores; and the annotated boxes of the LiDAR frame, brought
back to the map; their attributes are guessed from speeds) and must come to the same figures.

    python benchmarks/nuscenes_devkit_crosscheck.py
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import record

from multimodal_zoo.bev.post_processing import Detections
from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.data.camera_reader import nuscenes_scenes
from multimodal_zoo.evaluation.nuscenes_boxes import ERRORS, GlobalBoxes, NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_filter import counted
from multimodal_zoo.evaluation.nuscenes_metrics import DetectionScores, detection_scores
from multimodal_zoo.evaluation.nuscenes_results import read_submission
from multimodal_zoo.evaluation.nuscenes_submission import scene_boxes, write_submission

DEVKIT = "nuscenes-devkit==1.2.0"
#: The fewest packages with which the devkit's detection evaluation can be imported.
NEEDED = ("numpy>=2.4", "matplotlib", "opencv-python-headless", "pyquaternion", "scikit-learn", "cachetools", "tqdm")
VERSION, SPLIT = "v1.0-synthetic", "crosscheck"
#: The devkit's names of the errors, in our order.
THEIRS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
LARGEST = 1e-9
RULES = NuScenesProtocol()


def environment(folder: Path) -> Path:
    """A Python that has the devkit."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    for packages in (["--no-deps", DEVKIT], list(NEEDED)):
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return python


def synthetic(folder: Path, scenes: int, frames: int) -> list[SceneInfo]:
    """All key frames of a small data set, and a split that names all of its scenes."""
    words = [f"scenes={scenes}", f"frames={frames}", "size=64x36", "rate=2"]
    subprocess.run(
        [sys.executable, "-m", "multimodal_zoo", "data", "synth-nuscenes", str(folder), *words],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    file = folder / VERSION / "splits.json"
    splits = json.loads(file.read_text())
    splits[SPLIT] = [name for names in splits.values() for name in names]
    file.write_text(json.dumps(splits))
    return nuscenes_scenes(str(folder), VERSION, SPLIT).infos


def noisy(infos: Sequence[SceneInfo]) -> GlobalBoxes:
    """Annotated boxes with noise: a fifth missing, a tenth of another class, half as many again that are nowhere."""
    random = np.random.default_rng(0)
    truth = GlobalBoxes.of([info.truth for info in infos if info.truth], RULES.classes)
    kept = truth.take(random.random(len(truth)) > 0.2)
    wild = truth.take(random.random(len(truth)) > 0.5)
    parts = []
    for boxes, metres in ((kept, 0.7), (wild, 15.0)):
        count = len(boxes)
        angle = random.normal(0, 0.3, (count, 1))
        turn = np.concatenate([np.cos(angle / 2), 0 * angle, 0 * angle, np.sin(angle / 2)], axis=1)
        other = random.random(count) < 0.1
        parts.append(
            GlobalBoxes(
                sample=boxes.sample,
                translation=boxes.translation + random.normal(0, metres, (count, 3)),
                size=boxes.size * np.exp(random.normal(0, 0.2, (count, 3))),
                rotation=turned(turn, boxes.rotation),
                velocity=np.nan_to_num(boxes.velocity) + random.normal(0, 0.5, (count, 2)),
                label=np.where(other, random.integers(0, len(RULES.classes), count), boxes.label),
                attribute=np.where(random.random(count) < 0.2, random.integers(-1, 8, count), boxes.attribute),
                score=np.round(np.exp(-random.exponential(0.1 * metres, count)), 2),  # rounded: many are equal
                points=np.full(count, -1),
            )
        )
    found = GlobalBoxes.joined(parts)
    return found.take(random.permutation(len(found)))


def turned(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Products of quaternions (n, 4), w, x, y, z, the first of which turns about the upright axis."""
    (a, _, _, d), (w, x, y, z) = first.T, second.T
    return np.stack([a * w - d * z, a * x - d * y, a * y + d * x, a * z + d * w], axis=1)


def back_from_lidar(infos: Sequence[SceneInfo]) -> GlobalBoxes:
    """Annotated boxes as a detector in the LiDAR frame would give them, in the frame of the map."""
    parts = []
    for number, info in enumerate(infos):
        assert info.objects is not None
        touched = info.objects.num_lidar_pts + info.objects.num_radar_pts > 0
        rows = [row for row, name in enumerate(info.objects.names) if touched[row] and name in RULES.classes]
        found = Detections(
            torch.from_numpy(np.nan_to_num(info.objects.boxes[rows])),
            torch.linspace(0.9, 0.5, len(rows)),
            torch.tensor([RULES.classes.index(info.objects.names[row]) for row in rows], dtype=torch.long),
        )
        parts.append(scene_boxes(info, found, RULES.classes, RULES, number))
    return GlobalBoxes.joined(parts)


def ours(infos: Sequence[SceneInfo], submission: Path) -> tuple[DetectionScores, dict[str, float]]:
    """Figures from the file; how many boxes count, and the seconds of all figures."""
    found, _ = read_submission(submission, [info.token for info in infos], RULES)
    truths = [info.truth for info in infos if info.truth]
    ego = np.stack([info.ego2global[:3, 3] for info in infos])
    racks = [truth.racks for truth in truths]
    truth, found = (
        side.take(counted(side, RULES, ego, racks)) for side in (GlobalBoxes.of(truths, RULES.classes), found)
    )
    start = time.process_time()
    scores = detection_scores(truth, found, RULES)
    return scores, {"objects": len(truth), "boxes": len(found), "seconds": time.process_time() - start}


def difference(scores: DetectionScores, theirs: dict[str, Any]) -> float:
    """The largest over all APs, errors and means; NaN must stand where theirs does."""
    pairs = list(zip(scores.summary().values(), theirs["summary"], strict=True))
    for name, precision, errors in zip(RULES.classes, scores.average_precision, scores.errors, strict=True):
        pairs += [(ap, theirs["ap"][name][str(metres)]) for ap, metres in zip(precision, RULES.distances, strict=True)]
        pairs += [(error, theirs["errors"][name][key]) for error, key in zip(errors, THEIRS, strict=True)]
    assert all(math.isnan(one) == math.isnan(other) for one, other in pairs)
    return max(abs(one - other) for one, other in pairs if not math.isnan(one))


def full_size(samples: int = 6019, boxes: int = 500, objects: int = 31) -> dict[str, Any]:
    """Seconds of filter and figures for boxes as many as the validation split may have."""
    random = np.random.default_rng(0)

    def made(count: int, score: bool) -> GlobalBoxes:
        sample = np.repeat(np.arange(samples), count)
        total = len(sample)
        angle = random.uniform(-math.pi, math.pi, total) / 2
        return GlobalBoxes(
            sample=sample,
            translation=random.uniform(-50, 50, (total, 3)),
            size=random.uniform(0.5, 5, (total, 3)),
            rotation=np.stack([np.cos(angle), 0 * angle, 0 * angle, np.sin(angle)], axis=1),
            velocity=random.normal(0, 2, (total, 2)),
            label=random.integers(0, 10, total),
            attribute=random.integers(0, 8, total),
            score=random.random(total) if score else np.full(total, -1.0),
            points=np.full(total, -1 if score else 1),
        )

    truth, found = made(objects, False), made(boxes, True)
    near = np.flatnonzero(random.random(len(found)) < 0.5)
    of = found.sample[near] * objects + random.integers(0, objects, len(near))
    found.translation[near], found.label[near] = truth.translation[of] + 1, truth.label[of]
    start = time.process_time()
    sides = [side.take(counted(side, RULES, np.zeros((samples, 3)), [])) for side in (truth, found)]
    detection_scores(*sides, RULES)
    seconds = time.process_time() - start
    return {"submission": f"{samples} key frames x {boxes} boxes, made up", "figure": "s, filter and figures",
            "ours": seconds}  # fmt: skip


def compared(python: Path, folder: Path, infos: Sequence[SceneInfo], name: str, boxes: GlobalBoxes) -> list[Any]:
    """Rows of one submission.

    Raises:
        AssertionError: figures that differ.
    """
    file = write_submission(folder / "submission.json", boxes, [info.token for info in infos], RULES)
    scores, counts = ours(infos, file)
    script = Path(__file__).parent / "_nuscenes_devkit.py"
    words = [str(python), str(script), str(folder), VERSION, SPLIT, str(file)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    theirs = json.loads(said)
    assert (counts["objects"], counts["boxes"]) == (theirs["objects"], theirs["boxes"]), (counts, theirs)
    largest = difference(scores, theirs)
    assert largest < LARGEST, f"{name}: figures differ by {largest}"
    figures = zip(scores.summary().items(), theirs["summary"], strict=True)
    rows: list[Any] = [
        {"submission": name, "figure": figure, "ours": value, "devkit": other} for (figure, value), other in figures
    ]
    for key, what in (("objects", "objects that count"), ("boxes", "boxes that count")):
        rows.append({"submission": name, "figure": what, "ours": int(counts[key]), "devkit": theirs[key]})
    seconds = counts["seconds"]
    rows.append({"submission": name, "figure": "s, figures alone", "ours": seconds, "devkit": theirs["seconds"]})
    classes = f"largest difference, {len(RULES.classes)} classes x ({len(RULES.distances)} AP + {len(ERRORS)} errors)"
    rows.append({"submission": name, "figure": classes, "ours": largest, "devkit": 0.0})
    return rows


def main() -> None:
    """Make, evaluate, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="one that has the devkit; without, an environment is made")
    parser.add_argument("--smoke", action="store_true", help="two scenes, nothing recorded")
    options = parser.parse_args()
    scenes, frames = (2, 2) if options.smoke else (8, 12)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "synthetic"
        infos = synthetic(folder, scenes, frames)
        python = options.python or environment(Path(temporary) / "environment")
        rows = compared(python, folder, infos, "annotations with noise", noisy(infos))
        rows += compared(python, folder, infos, "annotations through the LiDAR frame", back_from_lidar(infos))
    if not options.smoke:
        rows.append(full_size())
    record(
        "nuscenes_devkit_crosscheck", rows, "python benchmarks/nuscenes_devkit_crosscheck.py", keep=not options.smoke
    )


if __name__ == "__main__":
    main()
