"""Annotated objects of a sample: what their arrays must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multimodal_zoo.data.global_objects import GlobalObjects


def objects(**changed: Any) -> GlobalObjects:
    """Two cars, one of unknown velocity."""
    given: dict[str, Any] = {
        "names": ("car", "car"),
        "translation": np.zeros((2, 3)),
        "size": np.ones((2, 3)),
        "rotation": np.tile([1.0, 0.0, 0.0, 0.0], (2, 1)),
        "velocity": np.array([[1.0, 2.0], [np.nan, np.nan]]),
        "attributes": ("vehicle.moving", ""),
        "points": np.array([0, 7]),
    }
    return GlobalObjects(**given | changed)


def test_a_sample_may_have_none() -> None:
    assert len(objects()) == 2
    assert len(GlobalObjects.none()) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"translation": np.zeros((1, 3))}, r"translation is float64 \(1, 3\); expected float64 \(2, 3\)"),
        ({"size": np.ones((2, 3), dtype=np.float32)}, "size is float32"),
        ({"translation": np.array([[0.0, 0.0, 0.0], [np.nan, 0.0, 0.0]])}, r"translation of object 1 \(car\)"),
        ({"velocity": np.full((2, 2), np.inf)}, "velocity of object 0"),
        ({"attributes": ("",)}, "1 attributes"),
        ({"points": np.zeros((2, 1))}, r"points of shape \(2, 1\)"),
        ({"size": np.zeros((2, 3))}, "sizes .* above 0"),
        ({"rotation": np.zeros((2, 4))}, "longer than 0"),
    ],
)
def test_other_arrays_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        objects(**changed)
