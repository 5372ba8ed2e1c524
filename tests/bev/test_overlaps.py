"""Overlaps against clipping of polygons, and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import overlap, scattered
from torch.testing import assert_close

from multimodal_zoo.bev.boxes import seen_from_above
from multimodal_zoo.bev.overlaps import (
    aligned_overlaps,
    nearest_overlaps,
    nearest_rectangles,
    rotated_overlaps,
)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_rotated_overlaps_equal_clipping(dtype: torch.dtype, atol: float) -> None:
    boxes = seen_from_above(scattered(40, 4.0)[0])
    wanted = torch.tensor([[overlap(a, b) for b in boxes.tolist()] for a in boxes.tolist()], dtype=torch.float64)
    assert 0.1 < float((wanted > 0).double().mean()) < 0.95
    given = boxes.to(dtype)
    found = rotated_overlaps(given[:, None], given[None])
    assert found.dtype == dtype
    assert_close(found.double(), wanted, atol=atol, rtol=0)


@pytest.mark.parametrize("yaw", [0.0, math.pi / 2, -math.pi, 0.3, 1.57])
def test_rectangles_that_share_sides_and_corners(yaw: float) -> None:
    one = torch.tensor([0.0, 0.0, 2.0, 4.0, yaw])

    def against(x: float, y: float, width: float, length: float, turn: float = 0.0) -> float:
        """Overlap with a rectangle given in the frame of the first."""
        shift = (x * math.cos(yaw) + y * math.sin(yaw), -x * math.sin(yaw) + y * math.cos(yaw))
        other = torch.tensor([*shift, width, length, yaw + turn])
        found, back = rotated_overlaps(one, other), rotated_overlaps(other, one)
        assert_close(found, back, atol=1e-5, rtol=0)
        return float(found)

    assert against(0, 0, 2, 4) == pytest.approx(1, abs=1e-6)  # the same
    assert against(0, 0, 4, 2, math.pi / 2) == pytest.approx(1, abs=1e-5)  # the same, named differently
    assert against(0, 0, 2, 4, math.pi) == pytest.approx(1, abs=1e-5)
    assert against(0.5, 0, 1, 4) == pytest.approx(0.5, abs=1e-5)  # the right half
    assert against(0, 0, 1, 2) == pytest.approx(0.25, abs=1e-6)  # inside
    assert against(2, 0, 2, 4) == pytest.approx(0, abs=1e-6)  # side by side
    assert against(2, 4, 2, 4) == pytest.approx(0, abs=1e-6)  # corner to corner
    assert against(0, 0, 4, 2) == pytest.approx(4 / 12, abs=1e-6)  # a cross
    assert against(9, 0, 2, 4) == 0


def test_overlaps_of_huge_tiny_and_flat_rectangles_are_finite() -> None:
    sizes = torch.tensor([1e-12, 1e-6, 1.0, 1e6])
    wide, long = torch.meshgrid(sizes, sizes, indexing="ij")
    boxes = torch.stack([torch.zeros(16), torch.zeros(16), wide.flatten(), long.flatten(), torch.zeros(16)], 1)
    turned = boxes + torch.tensor([0, 0, 0, 0, math.pi / 2])
    found = rotated_overlaps(boxes[:, None], torch.cat([boxes, turned])[None])
    assert bool(found.isfinite().all())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-5
    flat = torch.tensor([0.0, 0.0, 0.0, 2.0, 0.4])
    assert float(rotated_overlaps(flat, flat)) == 0


def test_nearest_rectangles() -> None:
    box = [1.0, 2.0, 0.0, 2.0, 4.0, 1.0, 0.0, 0.0, 0.0]
    upright, lying = torch.tensor([0.0, 0.0, 2.0, 4.0]), torch.tensor([-1.0, 1.0, 3.0, 3.0])
    for yaw in (0.0, 0.7, -0.7, math.pi, 3.5, -2.6):
        assert_close(nearest_rectangles(torch.tensor([*box[:6], yaw, 0.0, 0.0])), upright)
    for yaw in (0.8, -0.8, math.pi / 2, 2.0, -2.0, 4.5):
        assert_close(nearest_rectangles(torch.tensor([*box[:6], yaw, 0.0, 0.0])), lying)


def test_nearest_overlaps_equal_exact_ones_at_right_angles() -> None:
    boxes, _ = scattered(30, 4.0)
    boxes[:, 6] = math.pi / 2 * torch.arange(30).double() - 20 * math.pi
    rectangles = seen_from_above(boxes)
    exact = rotated_overlaps(rectangles[:, None], rectangles[None])
    assert_close(nearest_overlaps(boxes, boxes), exact, atol=1e-9, rtol=0)
    assert nearest_overlaps(boxes[:0], boxes).shape == (0, 30)
    assert nearest_overlaps(boxes, boxes[:0]).shape == (30, 0)


def test_empty_rectangles_overlap_nothing() -> None:
    flat = torch.tensor([1.0, 1.0, 1.0, 5.0])
    assert float(aligned_overlaps(flat, flat)) == 0


def test_rotated_overlaps_have_gradients_and_export() -> None:
    first, second = (seen_from_above(scattered(6, 1.0, seed)[0]).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(rotated_overlaps, (first, second))

    class Dense(torch.nn.Module):
        def forward(self, boxes: torch.Tensor) -> torch.Tensor:
            return rotated_overlaps(boxes[:, None], boxes[None])

    boxes = seen_from_above(scattered(12, 3.0)[0]).float()
    exported = torch.export.export(Dense(), (boxes[:5],), dynamic_shapes=({0: torch.export.Dim("boxes", min=2)},))
    assert_close(exported.module()(boxes), Dense()(boxes), atol=0, rtol=0)
    assert rotated_overlaps(torch.empty(4, 5, device="meta"), torch.empty(4, 5, device="meta")).shape == (4,)
