"""Precision, confidence and errors of one class over recall, as nuScenes' detection benchmark draws them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_zoo.evaluation.nuscenes_boxes import ERRORS, GlobalBoxes

#: Recalls at which curves have values.
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves over `RECALLS` of one class and one distance of matching.

    Attributes:
        precision: (101,), 0 behind the highest recall.
        confidence: (101,), score at which each recall is reached, 0 behind the highest.
        errors: (5, 101), running means of `ERRORS` over the matches so far.
        objects: how many there were to find.
        found: how many were found.
    """

    precision: np.ndarray
    confidence: np.ndarray
    errors: np.ndarray
    objects: int
    found: int

    @classmethod
    def empty(cls, objects: int) -> Curves:
        """Where nothing was found: no precision, errors of 1."""
        return cls(np.zeros(len(RECALLS)), np.zeros(len(RECALLS)), np.ones((len(ERRORS), len(RECALLS))), objects, 0)

    def average_precision(self, min_recall: float, min_precision: float) -> float:
        """The mean precision above both bounds, from 0 to 1 (arXiv 1903.11027, section 3.1)."""
        above = np.maximum(self.precision[_first(min_recall) :] - min_precision, 0)
        return float(above.mean()) / (1 - min_precision)

    def mean_errors(self, min_recall: float) -> np.ndarray:
        """The mean of each error above a recall, (5,); 1 where that recall is not reached."""
        reached = np.flatnonzero(self.confidence)
        last = int(reached[-1]) if len(reached) else 0
        first = _first(min_recall)
        return self.errors[:, first : last + 1].mean(1) if last >= first else np.ones(len(ERRORS))


def _first(min_recall: float) -> int:
    """The first bin above a recall."""
    return round(100 * min_recall) + 1


def curves(truth: GlobalBoxes, found: GlobalBoxes, matches: np.ndarray, period: float) -> Curves:
    """Curves of one class.

    Args:
        truth: the objects.
        found: the detections by falling score.
        matches: int (found,), the object that each found, -1 for none.
        period: radians after which an orientation is the same again.
    """
    right = matches >= 0
    if not right.any():
        return Curves.empty(len(truth))
    hits = np.cumsum(right).astype(float)
    recall = hits / len(truth)
    precision = np.interp(RECALLS, recall, hits / np.arange(1, len(found) + 1), right=0)
    confidence = np.interp(RECALLS, recall, found.score, right=0)
    scores = found.score[right][::-1]
    errors = [
        np.interp(confidence[::-1], scores, running_mean(one)[::-1])[::-1]
        for one in match_errors(truth.take(matches[right]), found.take(right), period)
    ]
    return Curves(precision, confidence, np.stack(errors), len(truth), int(right.sum()))


def match_errors(truth: GlobalBoxes, found: GlobalBoxes, period: float) -> np.ndarray:
    """`ERRORS` of each detection against the object of the same row, (5, n); NaN where the object has no such truth.

    Translation on the ground, 1 - overlap of the sizes, turn about the upright axis, velocity, wrong attribute.
    """
    translation = np.sqrt(((found.translation - truth.translation)[:, :2] ** 2).sum(1))
    common = np.minimum(truth.size, found.size).prod(1)
    overlap = common / (truth.size.prod(1) + found.size.prod(1) - common)
    turn = yaw(truth.rotation) - yaw(found.rotation)
    orientation = np.abs((turn + period / 2) % period - period / 2)
    velocity = np.sqrt(((found.velocity - truth.velocity) ** 2).sum(1))
    attribute = np.where(truth.attribute < 0, np.nan, truth.attribute != found.attribute)
    return np.stack((translation, 1 - overlap, orientation, velocity, attribute))


def yaw(rotation: np.ndarray) -> np.ndarray:
    """Angle (n,) of the front from x towards y of quaternions (n, 4), w, x, y, z, of any length but 0."""
    w, x, y, z = rotation.T
    return np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the values up to each, (n,), where NaN is skipped: 0 before the first number, 1 where there is none."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones(len(values))
    count = np.cumsum(known)
    return np.where(count > 0, np.nancumsum(values) / np.maximum(count, 1), 0.0)
