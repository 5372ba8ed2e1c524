"""Which boxes count: distances, points, racks for bicycles."""

from __future__ import annotations

import numpy as np
import pytest
from nuscenes_made_up import some, turned

from multimodal_zoo.evaluation.nuscenes_boxes import NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_filter import counted, row_pairs

RULES = NuScenesProtocol()
CAR, BICYCLE, PEDESTRIAN, CONE = (RULES.classes.index(one) for one in ("car", "bicycle", "pedestrian", "traffic_cone"))
NO_RACKS = [np.zeros((0, 10))] * 2


def test_boxes_beyond_the_range_of_their_class_do_not_count() -> None:
    """Below the range, on the ground, from the car of the box's own sample."""
    ego = np.array([[600.0, 800.0, 0.0], [0.0, 0.0, 0.0]])
    away = np.array([49.9, 50.0, 39.9, 40.1, 29.9, 30.1])
    boxes = some(
        7,
        sample=[0, 0, 0, 0, 0, 0, 1],
        translation=np.concatenate([ego[0] + away[:, None] * [0.6, 0.8, 7.0], [[600, 800, 0]]]),
        label=[CAR, CAR, PEDESTRIAN, PEDESTRIAN, CONE, CONE, CAR],
    )
    assert counted(boxes, RULES, ego, NO_RACKS).tolist() == [True, False, True, False, True, False, False]
    near = NuScenesProtocol(class_range=dict.fromkeys(RULES.classes, 35.0))
    assert counted(boxes, near, ego, NO_RACKS).tolist() == [False, False, False, False, True, True, False]


def test_objects_that_no_sensor_touched_do_not_count() -> None:
    boxes = some(3, points=[0, 1, -1])  # detections have -1
    assert counted(boxes, RULES, np.zeros((1, 3)), NO_RACKS).tolist() == [False, True, True]


def test_cycles_in_racks_do_not_count() -> None:
    """The rack is turned by a quarter: 6 m long along y, 2 m wide along x, 1 m high."""
    rack = np.concatenate([[10.0, 0.0, 0.0], [2.0, 6.0, 1.0], turned(np.pi / 2)[0]])
    places = [[10.9, 2.9, 0.4], [10.9, 2.9, 0.6], [12.0, 0.0, 0.0], [10.0, 3.0, 0.5], [10.0, 0.0, 0.0], [10.0, 0, 0]]
    boxes = some(
        6, translation=places, sample=[0, 0, 0, 0, 1, 0], label=[BICYCLE, BICYCLE, BICYCLE, BICYCLE, BICYCLE, CAR]
    )
    inside = counted(boxes, RULES, np.zeros((2, 3)), [rack[None], np.zeros((0, 10))])
    assert inside.tolist() == [False, True, True, False, True, True]


def test_row_pairs() -> None:
    first, second = np.array([4, 7, 4, 1]), np.array([1, 4, 9, 4])
    rows, others = row_pairs(first, second)
    assert list(zip(rows.tolist(), others.tolist(), strict=True)) == [(0, 1), (0, 3), (2, 1), (2, 3), (3, 0)]
    assert [len(one) for one in row_pairs(first, np.zeros(0, dtype=int))] == [0, 0]


@pytest.mark.parametrize(("column", "value"), [("sample", 2), ("sample", -1), ("label", 10)])
def test_boxes_of_nothing_are_refused(column: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"boxes: {column} reaches from"):
        counted(some(1, **{column: value}), RULES, np.zeros((2, 3)), NO_RACKS)
