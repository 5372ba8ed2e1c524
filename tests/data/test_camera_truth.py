"""Boxes for the loss: which are kept, and what their velocities become."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.data.camera_infos import SceneInfo, SceneObjects
from multimodal_zoo.data.camera_truth import BoxTruth

CLASSES = ["car", "bus"]


def scene(boxes: np.ndarray, names: tuple[str, ...], lidar: list[int], radar: list[int]) -> SceneInfo:
    counts = np.array(lidar, dtype=np.int64), np.array(radar, dtype=np.int64)
    objects = SceneObjects(boxes, names, *counts, counts[0] + counts[1] > 0)
    return SceneInfo("s", "", 0, np.eye(4), np.eye(4), {}, [], [], np.array([0.5, 6.0]), objects, None)


@pytest.fixture
def info() -> SceneInfo:
    boxes = np.arange(1.0, 37.0).reshape(4, 9)
    boxes[1, 7:] = np.nan
    return scene(boxes, ("bus", "car", "animal", "car"), [1, 2, 3, 0], [0, 0, 0, 7])


def test_kept(info: SceneInfo) -> None:
    found = BoxTruth()(info, CLASSES)
    assert found.labels.tolist() == [1, 0, -1]
    assert found.boxes.dtype == torch.float32
    assert BoxTruth("valid_flag")(info, CLASSES).labels.tolist() == [1, 0, -1, 0]


@pytest.mark.parametrize(
    ("velocity", "unknown", "first", "second", "known"),
    [
        ("absolute", "masked", [8.0, 9.0], [0.0, 0.0], False),
        ("absolute", "legacy", [8.0, 9.0], [0.5, 6.0], True),
        ("relative", "masked", [7.5, 3.0], [0.0, 0.0], False),
        ("relative", "legacy", [7.5, 3.0], [0.0, 0.0], True),
    ],
)
def test_velocities(
    info: SceneInfo, velocity: str, unknown: str, first: list[float], second: list[float], known: bool
) -> None:
    """Published: no velocity counts as none relative to the car, whose own is then added."""
    found = BoxTruth("lidar_points", velocity, unknown)(info, CLASSES)
    assert_close(found.boxes[:2, 7:], torch.tensor([first, second]))
    assert found.velocity_known.tolist() == [True, known, True]
    assert info.objects is not None
    assert np.isnan(info.objects.boxes[1, 7])  # the record stays as it is


def test_nothing_there() -> None:
    empty = scene(np.zeros((0, 9)), (), [], [])
    for info in (empty, dataclasses.replace(empty, objects=None)):
        found = BoxTruth()(info, CLASSES)
        assert found.boxes.shape == (0, 9)
        assert found.labels.dtype == torch.long
        assert found.velocity_known.dtype == torch.bool


def test_boxes_that_cannot_be(info: SceneInfo) -> None:
    assert info.objects is not None
    info.objects.boxes[0, 1] = np.nan
    with pytest.raises(ValueError, match=r"sample s: box 0 is \[1\.0, nan, 3\.0.*expected finite x, y, z"):
        BoxTruth()(info, CLASSES)
    info.objects.boxes[0, 1:4] = 1.0, 1.0, -2.0
    with pytest.raises(ValueError, match=r"box 0 is .*sizes above 0"):
        BoxTruth()(info, CLASSES)
    for words in (("all",), ("valid_flag", "abs"), ("valid_flag", "absolute", "zero")):
        with pytest.raises(ValueError, match=r"data\.rules\.truth\.\w+ is .*; expected one of"):
            BoxTruth(*words)
