"""The sample sheet's pairs and the similarities that it shows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from multimodal_zoo.data.documents import Document, pair
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.training.samples import SampleSheet, similarities


class Numbered:
    """Six pictures, the second of which is broken."""

    def __init__(self) -> None:
        self.skips = Skips()

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Document:
        if index == 1:
            raise UnusableError("broken image", "1")
        return pair(np.zeros((4, 4, 3), np.uint8), str(index), {"key": str(index)})


def test_a_broken_validation_picture_is_left_out() -> None:
    dataset = Numbered()
    pairs = SampleSheet(gallery=6)._choose(SimpleNamespace(datamodule=SimpleNamespace(validation=dataset)))
    assert [text for _, text in pairs] == ["0", "2", "3", "4", "5"]
    assert dataset.skips.counts == {"broken image": 1}


def test_similarities_leave_each_part_in_its_mode(tiny) -> None:
    model = tiny()
    model.text.eval()
    before = [module.training for module in model.modules()]
    processor = SimpleNamespace(
        images=lambda images: torch.ones(len(images), 3, 4, 4), texts=lambda texts: torch.ones(len(texts), 2).long()
    )
    pairs = [(None, "a"), (None, "b"), (None, "a")]
    scores = similarities(model, processor, pairs, 2, torch.device("cpu"))
    assert scores.shape == (2, 2)
    assert not scores.requires_grad
    torch.testing.assert_close(scores, similarities(model, processor, pairs, 2, torch.device("cpu")))  # no dropout
    assert [module.training for module in model.modules()] == before
