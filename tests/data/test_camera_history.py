"""Which other times a sample holds, by closed form, and the mix-up of published converters."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from multimodal_zoo.data.camera_history import CameraHistory
from multimodal_zoo.data.camera_infos import CAMERA_NAMES, CameraInfo, SceneInfo, Sweep


def scene(before: int, after: int) -> SceneInfo:
    """Sweeps whose pictures are named after side, number and camera."""

    def sweeps(side: str, count: int) -> list[Sweep]:
        return [Sweep(0, np.eye(4), {name: f"{side}{n}/{name}" for name in CAMERA_NAMES}) for n in range(count)]

    cameras = {name: CameraInfo(f"now/{name}", np.eye(3), np.eye(4)) for name in CAMERA_NAMES}
    rest: dict[str, Any] = {"ego_velocity": np.zeros(2), "objects": None, "truth": None}
    earlier, later = sweeps("-", before), sweeps("+", after)
    return SceneInfo("sample", "", 0, np.eye(4), np.eye(4), cameras, earlier, later, **rest)


def read(history: CameraHistory, info: SceneInfo, random: Random | None = None) -> list[str]:
    """Side and number of the front camera's picture at each other time."""
    chosen = history.chosen(info, random)
    return [str(history.pictures(info, one, CAMERA_NAMES)[0]).partition("/")[0] for one in chosen]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (9, 9, ["-1", "-3", "-5"]),
        (4, 9, ["-1", "-3", "-3"]),
        (1, 9, ["-0", "-0", "-0"]),
        (0, 9, ["+1", "+3", "+5"]),
        (0, 2, ["+1", "+1", "+1"]),
        (0, 0, ["now", "now", "now"]),
    ],
)
def test_numbers(before: int, after: int, expected: list[str]) -> None:
    """As published: numbers beyond the list take its last, and an empty side gives way to the other."""
    assert read(CameraHistory(4), scene(before, after)) == expected
    assert read(CameraHistory(4), scene(before, after), Random(0)) == expected


def test_later_times() -> None:
    history = CameraHistory(3, (0, 2), evaluation_direction="following")
    assert read(history, scene(9, 9)) == ["+0", "+2"]
    assert read(history, scene(9, 0)) == ["-0", "-2"]
    assert read(history, scene(9, 9), Random(0)) == ["-0", "-2"]


def test_no_look_ahead() -> None:
    """The first key frame of a drive sees itself again."""
    history = CameraHistory(4, at_edges="past_only")
    assert read(history, scene(0, 9)) == ["now"] * 3
    assert read(history, scene(0, 9), Random(0)) == ["now"] * 3
    assert read(history, scene(2, 9)) == ["-1", "-1", "-1"]
    with pytest.raises(ValueError, match="at_edges=past_only needs direction and evaluation_direction previous"):
        CameraHistory(4, direction="either", at_edges="past_only")


def test_drawn_times() -> None:
    """Uniform over the interval, clipped to the list; evenly spread outside of training."""
    history = CameraHistory(2, None, interval=(2, 6))
    drawn = [read(history, scene(20, 20), Random(seed))[0] for seed in range(400)]
    counts = {name: drawn.count(name) for name in set(drawn)}
    assert set(counts) == {"-2", "-3", "-4", "-5"}
    assert min(counts.values()) > 60
    assert {read(history, scene(4, 0), Random(seed))[0] for seed in range(50)} == {"-2", "-3"}
    assert {read(history, scene(1, 0), Random(seed))[0] for seed in range(5)} == {"-0"}
    assert read(CameraHistory(4, None, interval=(0, 10)), scene(20, 20)) == ["-2", "-4", "-6"]
    assert read(history, scene(20, 20), Random(3)) == read(history, scene(20, 20), Random(3))


def test_drawn_sides() -> None:
    history = CameraHistory(3, (1, 1), direction="either")
    found = {tuple(read(history, scene(9, 9), Random(seed))) for seed in range(50)}
    assert found == {(a, b) for a in ("-1", "+1") for b in ("-1", "+1")}
    assert read(history, scene(9, 9)) == ["-1", "-1"]


def test_mix_up() -> None:
    """Pictures from back left meet the calibration of back right and the reverse, at other times only."""
    info, legacy = scene(9, 9), CameraHistory(2, (1,), legacy_history_camera_order=True)
    (past,) = legacy.chosen(info)
    swapped = dict(zip(CAMERA_NAMES, legacy.pictures(info, past, CAMERA_NAMES), strict=True))
    assert swapped["CAM_BACK_LEFT"] == "-1/CAM_BACK_RIGHT"
    assert swapped["CAM_BACK_RIGHT"] == "-1/CAM_BACK_LEFT"
    assert all(swapped[name] == f"-1/{name}" for name in CAMERA_NAMES[:4])
    assert CameraHistory(2, (1,)).pictures(info, past, ["CAM_BACK_LEFT", "OTHER"]) == ["-1/CAM_BACK_LEFT", None]
    (now,) = legacy.chosen(scene(0, 0))
    assert legacy.pictures(info, now, ["CAM_BACK_LEFT"]) == ["now/CAM_BACK_LEFT"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"history\.ids is \[1\]; 4 frames need 3 numbers"):
        CameraHistory(4, [1])
    with pytest.raises(ValueError, match=r"history\.frames is 0"):
        CameraHistory(0)
    with pytest.raises(ValueError, match=r"history\.interval is \[3, 3\]"):
        CameraHistory(2, None, [3, 3])
    with pytest.raises(ValueError, match=r"history\.direction is 'prev'; expected one of previous"):
        CameraHistory(4, direction="prev")
