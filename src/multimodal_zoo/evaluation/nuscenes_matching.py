"""Which detection finds which object: by centres on the ground, the surest detection first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from multimodal_zoo.evaluation.nuscenes_boxes import GlobalBoxes
from multimodal_zoo.evaluation.nuscenes_filter import row_pairs

#: Detections whose distances are measured at a time.
BLOCK = 2**16


class Pairs(NamedTuple):
    """Detections and objects of the same sample, by detections, each detection's nearest object first.

    Attributes:
        found: int64 (pairs,), rows of detections.
        truth: int64 (pairs,), rows of objects.
        distance: float64 (pairs,), of centres in the plane, metres.
    """

    found: np.ndarray
    truth: np.ndarray
    distance: np.ndarray


def by_score(boxes: GlobalBoxes) -> GlobalBoxes:
    """Detections by falling score; of equal scores the later row comes first, as published figures have it."""
    return boxes.take(np.argsort(boxes.score, kind="stable")[::-1])


def near_pairs(truth: GlobalBoxes, found: GlobalBoxes, limit: float) -> Pairs:
    """Pairs of one class that are closer than `limit` metres; of equal distances the earlier object comes first."""
    parts = []
    for start in range(0, max(len(found), 1), BLOCK):
        rows, objects = row_pairs(found.sample[start : start + BLOCK], truth.sample)
        rows += start
        away = found.translation[rows, :2] - truth.translation[objects, :2]
        distance = np.sqrt((away**2).sum(1))
        near = distance < limit
        parts.append((rows[near], objects[near], distance[near]))
    rows, objects, distance = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((distance, rows))  # stable: objects of one distance stay in order
    return Pairs(rows[order], objects[order], distance[order])


def matched(pairs: Pairs, limit: float, found: int, truth: int) -> np.ndarray:
    """The object that each detection finds, int64 (found,), -1 for none.

    In order, each detection takes the nearest object that none before it took, if it is closer than `limit`. That is
    the stable matching in which all objects prefer earlier detections, so it is computed for all samples at once: every
    detection asks for its nearest object, each object keeps the first that asked, the others ask for their next one
    (Gale and Shapley, 1962).

    Args:
        pairs: of detections in the order of their right to choose.
        limit: metres.
        found: how many detections there are.
        truth: how many objects there are.
    """
    near = pairs.distance < limit
    rows, objects = pairs.found[near], pairs.truth[near]
    bounds = np.searchsorted(rows, np.arange(found + 1))
    place, end = bounds[:-1].copy(), bounds[1:]
    holder = np.full(truth, found)  # `found` stands for nobody
    asking = np.flatnonzero(place < end)
    while len(asking):
        wanted = objects[place[asking]]
        before = holder[wanted]
        np.minimum.at(holder, wanted, asking)
        after = holder[wanted]
        sent_away = np.unique(before[(before < found) & (before != after)])
        waiting = np.concatenate((asking[after != asking], sent_away))
        place[waiting] += 1
        asking = waiting[place[waiting] < end[waiting]]
    matches = np.full(found, -1)
    taken = np.flatnonzero(holder < found)
    matches[holder[taken]] = taken
    return matches
