"""The batch of words and visual embeddings: its inputs, moving it, fields that do not fit each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from emu_documents import documents, packed, padded, sample
from torch.testing import assert_close

from multimodal_zoo.objectives.visual_batch import VisualTokenBatch


def batch() -> VisualTokenBatch:
    torch.manual_seed(0)
    return padded(documents("emu2"))


def test_what_a_model_gets() -> None:
    given = batch()
    inputs = given.inputs()
    assert inputs.keys() >= {"ids", "positions", "documents", "vision", "images", "visual"}
    assert inputs["images"] is given.images
    assert inputs["visual"] is None
    assert len(given) == 6


def test_moving_keeps_every_field() -> None:
    given = batch()
    moved = given.to("meta")
    assert isinstance(moved, VisualTokenBatch)
    assert all(getattr(moved, name).is_meta for name in ("ids", "weights", "documents", "positions", "vision"))
    assert moved.regression.is_meta
    assert moved.images is not None
    assert moved.images.pixels.is_meta
    assert moved.images.counts == given.images.counts
    known = replace(given, images=None, visual=torch.zeros(int(given.vision.sum()), 3))
    assert known.to("meta").visual.is_meta
    assert padded([sample("emu", 3)]).to("meta").images is None


def test_places_are_in_the_order_of_the_pictures() -> None:
    rows = documents("emu")
    one, several = padded(rows), packed([rows])
    assert_close(one.images.pixels, several.images.pixels)
    assert int(one.vision.sum()) == int(several.vision.sum()) == one.images.tokens


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision": torch.zeros(6, 3, dtype=torch.bool)}, r"vision has shape \(6, 3\), ids have \(6, "),
        ({"regression": torch.zeros(1, 3)}, r"regression has shape \(1, 3\)"),
        ({"vision": "long"}, r"vision must be bool, not torch\.int64"),
        ({"images": None}, "places for 0 visual embeddings"),
        ({"visual": torch.zeros(3, 3)}, "images or their visual embeddings, not both"),
        ({"images": None, "visual": torch.zeros(3, 3)}, "places for 3 visual embeddings"),
    ],
)
def test_fields_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    given = batch()
    if isinstance(changes.get("vision"), str):
        changes = {"vision": given.vision.long()}
    with pytest.raises(ValueError, match=message):
        replace(given, **changes)
