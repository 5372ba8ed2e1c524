"""Suppression of every kind against pair by pair clipping and loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from plain_boxes import overlap, scattered, suppressed
from torch import Tensor, nn

from multimodal_zoo.bev import suppression
from multimodal_zoo.bev.boxes import seen_from_above
from multimodal_zoo.bev.suppression import AlignedSuppression, CircleSuppression, Pairs, RotatedSuppression, kept
from multimodal_zoo.registry import build

KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rotated": RotatedSuppression(0.2),
    "grown": RotatedSuppression(0.5, 4.5),
    "shrunk": RotatedSuppression(0.05, 0.4),
    "all that touch": RotatedSuppression(0.0),
    "aligned": AlignedSuppression(0.2),
    "aligned and grown": AlignedSuppression(0.3, 2.0),
    "circle": CircleSuppression(4.0, limit=1000),
}


def too_near(name: str, boxes: Tensor) -> Tensor:
    """Which pairs do not go together, the plain way."""
    kind = KINDS[name]
    rows = seen_from_above(boxes).tolist()
    if isinstance(kind, CircleSuppression):
        return torch.tensor(
            [[(a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 <= kind.squared_distance for b in rows] for a in rows]
        )
    turn = 0.0 if isinstance(kind, AlignedSuppression) else 1.0
    sized = [[x, y, w * kind.factor, length * kind.factor, yaw * turn] for x, y, w, length, yaw in rows]
    return torch.tensor([[overlap(a, b) > kind.threshold for b in sized] for a in sized])


@pytest.mark.parametrize("block", [1, 7, 128])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_equals_a_loop(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suppression, "BLOCK", block)
    monkeypatch.setattr(suppression, "HELD_PAIRS", 100)
    boxes, scores = scattered(60, 8.0)
    wanted = suppressed(scores, too_near(name, boxes))
    assert 1 < len(wanted) < 60
    for dtype in (torch.float64, torch.float32):
        assert KINDS[name](boxes.to(dtype), scores.to(dtype)).tolist() == wanted
    assert KINDS[name](boxes[:, :7], scores).tolist() == wanted  # boxes without a velocity


@pytest.mark.parametrize("name", KINDS)
def test_none_one_and_many_of_the_same(name: str) -> None:
    boxes, scores = scattered(3, 50.0)
    assert KINDS[name](boxes[:0], scores[:0]).tolist() == []
    assert KINDS[name](boxes[:1], scores[:1]).tolist() == [0]
    same = boxes[:1].expand(300, 9)
    assert KINDS[name](same, torch.full((300,), 0.5)).tolist() == [0]  # of equal scores the first
    assert KINDS[name](same, torch.linspace(0, 1, 300)).tolist() == [299]


def test_the_threshold_itself_does_not_suppress_but_the_distance_itself_does() -> None:
    boxes = torch.zeros(2, 9, dtype=torch.float64)
    boxes[:, 3:6] = torch.tensor([2.0, 2.0, 1.0])
    boxes[1, 0] = 1.0  # a third of their union is common
    scores = torch.tensor([0.9, 0.8])
    third = (2 * 1) / (4 + 4 - 2)
    assert RotatedSuppression(third)(boxes, scores).tolist() == [0, 1]
    assert AlignedSuppression(third)(boxes, scores).tolist() == [0, 1]
    assert RotatedSuppression(third - 1e-9)(boxes, scores).tolist() == [0]
    assert CircleSuppression(1.0)(boxes, scores).tolist() == [0]
    assert CircleSuppression(1.0 - 1e-9)(boxes, scores).tolist() == [0, 1]


def test_a_suppressed_box_suppresses_nothing() -> None:
    """A long chain: every second box goes, whatever the rounds that this takes."""
    count = 301
    boxes = torch.zeros(count, 9)
    boxes[:, 0] = torch.arange(count) * 1.0
    boxes[:, 3:6] = 1.2
    scores = torch.linspace(1, 0.1, count)
    assert CircleSuppression(1.5, limit=1000)(boxes, scores).tolist() == list(range(0, count, 2))
    assert RotatedSuppression(0.05)(boxes, scores).tolist() == list(range(0, count, 2))


def test_circles_keep_so_many_at_most() -> None:
    boxes, scores = scattered(120, 1000.0)
    assert len(CircleSuppression(1e-6)(boxes, scores)) == 83
    best = scores.argsort(descending=True).tolist()
    assert CircleSuppression(1e-6, limit=7)(boxes, scores).tolist() == best[:7]


def test_fixed_point_of_random_pairs() -> None:
    generator = torch.Generator().manual_seed(3)
    for count in (1, 2, 10, 40):
        matrix = torch.rand(count, count, generator=generator) < 0.2
        before, behind = matrix.triu(1).nonzero(as_tuple=True)
        found = kept(count, Pairs(before, behind)).nonzero()[:, 0].tolist()
        assert found == suppressed(-torch.arange(count), matrix.triu(1))


class Exported(nn.Module):
    """A suppression as a module."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.kind = KINDS[name]

    def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
        return self.kind(boxes, scores)


@pytest.mark.parametrize("name", ["rotated", "circle"])
def test_export(name: str) -> None:
    boxes, scores = (one.float() for one in scattered(60, 8.0))
    exported = torch.export.export(Exported(name), (boxes, scores)).module()
    for seed in (0, 1):
        boxes, scores = (one.float() for one in scattered(60, 8.0, seed))
        assert exported(boxes, scores).tolist() == KINDS[name](boxes, scores).tolist()


def test_parts_and_what_is_refused() -> None:
    part = build({"type": "rotated_suppression", "threshold": 0.2})
    assert (part.threshold, part.factor) == (0.2, 1.0)
    assert build({"type": "circle_suppression", "squared_distance": 1}).limit == 83
    for kind in (RotatedSuppression, AlignedSuppression):
        for threshold, factor in ((-0.1, 1.0), (1.0, 1.0), (math.nan, 1.0), (0.2, 0.0), (0.2, math.nan)):
            with pytest.raises(ValueError, match=r"suppression\.threshold is"):
                kind(threshold, factor)
    for distance, limit in ((-1.0, 83), (math.nan, 83), (1.0, 0)):
        with pytest.raises(ValueError, match=r"circle_suppression\.squared_distance is"):
            CircleSuppression(distance, limit)
