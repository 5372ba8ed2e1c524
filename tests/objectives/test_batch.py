"""The batch of image-text pairs."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.objectives.batch import ImageTextBatch


def test_rows_must_agree() -> None:
    with pytest.raises(ValueError, match="'ids': 3"):
        ImageTextBatch(torch.zeros(2, 3, 4, 4), torch.zeros(3, 5).long(), ["a", "b"])
    with pytest.raises(ValueError, match="'concepts': 1"):
        ImageTextBatch(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5).long(), ["a", "b"], torch.zeros(1).long())


def test_moving_keeps_keys_and_concepts() -> None:
    batch = ImageTextBatch(torch.zeros(2, 3, 4, 4), torch.zeros(2, 5).long(), ["a", "b"], torch.tensor([1, 2]))
    moved = batch.to("meta")
    assert len(moved) == 2
    assert moved.images.device.type == moved.ids.device.type == "meta"
    assert moved.concepts is not None
    assert moved.concepts.device.type == "meta"
    assert moved.keys == ["a", "b"]
