"""Made-up boxes in the frame of the map, for the tests of nuScenes' detection metrics."""

from __future__ import annotations

from typing import Any

import numpy as np

from multimodal_zoo.evaluation.nuscenes_boxes import GlobalBoxes


def turned(angle: Any) -> np.ndarray:
    """Quaternions (n, 4) about the upright axis."""
    half = np.atleast_1d(np.asarray(angle, dtype=np.float64)) / 2
    return np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)


def some(count: int, **columns: Any) -> GlobalBoxes:
    """Equal boxes of sample 0 at the origin but for the columns that are given; floats as float64."""
    whole = {"sample": 0, "label": 0, "attribute": 5, "points": 3}
    given: dict[str, Any] = {
        "translation": np.zeros((count, 3)),
        "size": np.tile([2.0, 4.0, 1.5], (count, 1)),
        "rotation": turned(np.zeros(count)),
        "velocity": np.zeros((count, 2)),
        "score": np.linspace(0.9, 0.1, count) if count else np.zeros(0),
        **{name: np.full(count, value) for name, value in whole.items()},
    }
    for name, values in columns.items():
        dtype = np.int64 if name in whole else np.float64
        given[name] = np.broadcast_to(np.asarray(values, dtype=dtype), given[name].shape).copy()
    return GlobalBoxes(**given)


def drawn(seed: int, samples: int, objects: int, detections: int, classes: int = 10) -> tuple[GlobalBoxes, GlobalBoxes]:
    """Crowded objects and detections around them, with few scores, so that many are equal."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> GlobalBoxes:
        velocity = random.normal(0, 2, (count, 2))
        velocity[random.random(count) < 0.15] = np.nan
        return some(
            count,
            sample=np.sort(random.integers(0, samples, count)),
            translation=random.uniform(-6, 6, (count, 3)),
            size=random.uniform(0.5, 5, (count, 3)),
            rotation=random.normal(0, 1, (count, 1)) * turned(random.uniform(-np.pi, np.pi, count)),
            velocity=velocity,
            label=random.integers(0, classes, count),
            attribute=random.integers(-1, 8, count),
            score=random.integers(0, 12, count) / 12,
        )

    return boxes(objects), boxes(detections)
