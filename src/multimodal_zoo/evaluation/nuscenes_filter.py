"""Which boxes nuScenes' detection benchmark counts: near ones, those that a sensor touched, none in bicycle racks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from multimodal_zoo.bev.geometry import rotation_of
from multimodal_zoo.evaluation.nuscenes_boxes import RACKED, GlobalBoxes, NuScenesProtocol


def row_pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows, (pairs,) each, where two columns hold the same, by rows of the first, then of the second."""
    order = np.argsort(second, kind="stable")
    start, stop = (np.searchsorted(second[order], first, side) for side in ("left", "right"))
    counts = stop - start
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(first)), counts), order[np.repeat(start, counts) + within]


def counted(boxes: GlobalBoxes, protocol: NuScenesProtocol, ego: np.ndarray, racks: Sequence[np.ndarray]) -> np.ndarray:
    """Whether a box, annotated or detected, takes part in the comparison, bool (n,).

    Args:
        boxes: of all samples.
        protocol: says how far each class counts.
        ego: float64 (samples, 3), where the car is when its LiDAR measures, metres in the frame of the map.
        racks: (m, 10), bicycle racks of each sample: translation, size (width, length, height), quaternion.

    Raises:
        ValueError: a box of a sample or a class that does not exist.
    """
    for name, count in (("sample", len(ego)), ("label", len(protocol.classes))):
        column = getattr(boxes, name)
        if len(column) and not (column.min() >= 0 and column.max() < count):
            raise ValueError(f"boxes: {name} reaches from {column.min()} to {column.max()}; there are {count}")
    away = boxes.translation[:, :2] - ego[boxes.sample, :2]
    near = np.sqrt((away**2).sum(1)) < protocol.ranges[boxes.label]
    return near & (boxes.points != 0) & ~_in_racks(boxes, protocol, racks)


def _in_racks(boxes: GlobalBoxes, protocol: NuScenesProtocol, racks: Sequence[np.ndarray]) -> np.ndarray:
    """Whether a box is a cycle whose centre is inside a rack or on its side, bool (n,)."""
    inside = np.zeros(len(boxes), dtype=bool)
    cycles = np.flatnonzero(np.array([name in RACKED for name in protocol.classes])[boxes.label])
    samples = np.repeat(np.arange(len(racks)), [len(one) for one in racks])
    if not len(cycles) or not len(samples):
        return inside
    box, rack = row_pairs(boxes.sample[cycles], samples)
    rows = np.concatenate(racks)[rack]
    centre, size, rotation = rows[:, :3], rows[:, 3:6], rows[:, 6:]
    turned = rotation_of(torch.from_numpy(rotation)).numpy()
    local = np.einsum("nij,ni->nj", turned, boxes.translation[cycles[box]] - centre)  # along length, width, height
    within = (np.abs(local) <= size[:, [1, 0, 2]] / 2).all(1)
    inside[cycles[box[within]]] = True
    return inside
