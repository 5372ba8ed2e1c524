"""Printed models name their weights."""

from __future__ import annotations

from torch import nn

from multimodal_zoo.nn.shown_weights import ShowsWeights


class Model(ShowsWeights):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)


def test_a_printed_model_names_its_weights() -> None:
    model = Model()
    assert repr(model).startswith("Model(\n  weights: random\n")
    model.weights = "runs/today"  # type: ignore[assignment]
    assert "weights: runs/today" in repr(model)
