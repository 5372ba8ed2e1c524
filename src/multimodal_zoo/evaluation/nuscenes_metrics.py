"""nuScenes' detection metrics: mAP, five errors of true positives, NDS (arXiv 1903.11027, section 3.1).

All figures are those of nuscenes-devkit 1.2.0 with the configuration `detection_cvpr_2019`; a benchmark of this library
compares the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from multimodal_zoo.evaluation.nuscenes_boxes import (
    ERRORS,
    SYMMETRIC,
    UNDEFINED,
    GlobalBoxes,
    NuScenesProtocol,
    check_numbers,
)
from multimodal_zoo.evaluation.nuscenes_curves import Curves, curves
from multimodal_zoo.evaluation.nuscenes_matching import by_score, matched, near_pairs


@dataclass(frozen=True, eq=False)
class DetectionScores:
    """What a comparison came to.

    Attributes:
        protocol: its rules.
        curves: (class, distance) -> curves.
    """

    protocol: NuScenesProtocol
    curves: Mapping[tuple[str, float], Curves]

    @property
    def average_precision(self) -> np.ndarray:
        """(classes, distances)."""
        rules = self.protocol
        return np.array(
            [
                [
                    self.curves[name, distance].average_precision(rules.min_recall, rules.min_precision)
                    for distance in rules.distances
                ]
                for name in rules.classes
            ]
        )

    @property
    def errors(self) -> np.ndarray:
        """(classes, 5), in the order of `ERRORS`; NaN where a class has no such error."""
        rules = self.protocol
        found = np.stack(
            [self.curves[name, rules.error_distance].mean_errors(rules.min_recall) for name in rules.classes]
        )
        left_out = [[error in UNDEFINED.get(name, ()) for error in ERRORS] for name in rules.classes]
        return np.where(left_out, np.nan, found)

    @property
    def mean_average_precision(self) -> float:
        """mAP: over distances, then classes."""
        return float(self.average_precision.mean(1).mean())

    @property
    def mean_errors(self) -> np.ndarray:
        """(5,), over the classes that have the error; NaN where none has."""
        errors = self.errors
        known = ~np.isnan(errors)
        total = np.where(known, errors, 0.0).sum(0)
        return np.divide(total, known.sum(0), out=np.full(len(ERRORS), np.nan), where=known.any(0))

    @property
    def nds(self) -> float:
        """NDS, the detection score, (5 mAP + sum of max(0, 1 - error)) / 10 with the usual weight."""
        weight = self.protocol.ap_weight
        scores = sum(max(0.0, 1 - float(error)) for error in self.mean_errors if not math.isnan(error))
        return (weight * self.mean_average_precision + scores) / (weight + len(ERRORS))

    def summary(self) -> dict[str, float]:
        """mAP, mATE, mASE, mAOE, mAVE, mAAE, NDS."""
        means = {f"m{name}": float(error) for name, error in zip(ERRORS, self.mean_errors, strict=True)}
        return {"mAP": self.mean_average_precision, **means, "NDS": self.nds}


def class_curves(truth: GlobalBoxes, found: GlobalBoxes, protocol: NuScenesProtocol, label: int) -> dict[float, Curves]:
    """Curves of one class, for each distance of the protocol.

    Args:
        truth: all annotated objects that count.
        found: all detections that count.
        protocol: the rules.
        label: the class.
    """
    truth, found = truth.take(truth.label == label), by_score(found.take(found.label == label))
    period = math.pi if protocol.classes[label] in SYMMETRIC else 2 * math.pi
    if not len(truth) or not len(found):
        return {distance: Curves.empty(len(truth)) for distance in protocol.distances}
    pairs = near_pairs(truth, found, max(protocol.distances))
    return {
        distance: curves(truth, found, matched(pairs, distance, len(found), len(truth)), period)
        for distance in protocol.distances
    }


def detection_scores(truth: GlobalBoxes, found: GlobalBoxes, protocol: NuScenesProtocol) -> DetectionScores:
    """Compare detections with annotated objects; both are those that count (`nuscenes_filter.counted`).

    Raises:
        ValueError: numbers that are not finite (velocities may be NaN), or boxes without size.
    """
    check_numbers(truth, "object")
    check_numbers(found, "detection")
    return DetectionScores(
        protocol,
        {
            (name, distance): one
            for label, name in enumerate(protocol.classes)
            for distance, one in class_curves(truth, found, protocol, label).items()
        },
    )
