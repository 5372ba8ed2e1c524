"""Nearest pictures by pixels, codes and vectors, against loops."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from multimodal_zoo.evaluation import neighbours


def pixels(count: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (count, 6, 5, 3), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def test_nearest_by_pixels() -> None:
    queries, gallery = pixels(4, 0), pixels(9, 1)
    queries[2] = gallery[7]
    found = neighbours.nearest_pixels(queries, gallery)
    for query, number, value in zip(queries, found.number, found.value, strict=True):
        differences = [float(((query.float() - one.float()) / 255).square().mean().sqrt()) for one in gallery]
        assert int(number) == differences.index(min(differences))
        assert float(value) == pytest.approx(min(differences), abs=2e-3)
    assert (int(found.number[2]), float(found.value[2])) == (7, pytest.approx(0.0, abs=2e-3))
    assert neighbours.distances(queries[2:3], gallery[7:8]).item() == 0
    with pytest.raises(ValueError, match=r"\(6, 5\) cannot be compared with \(3, 5\)"):
        neighbours.nearest_pixels(queries, gallery[:, :3])


@pytest.mark.parametrize("block", [1, 2**26])
def test_nearest_by_codes(monkeypatch, block) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (torch.randint(3, (n, 2, 3), generator=generator) for n in (5, 8))
    found = neighbours.nearest_codes(queries, gallery)
    for query, number, value in zip(queries, found.number, found.value, strict=True):
        shares = [float((query == one).float().mean()) for one in gallery]
        assert float(value) == pytest.approx(max(shares))
        assert int(number) == shares.index(max(shares))


def test_nearest_by_vectors() -> None:
    found = neighbours.nearest_vectors(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.6, 0.8]]))
    assert (found.number.tolist(), found.value.tolist()) == ([1], [pytest.approx(0.6)])


def test_pictures_become_rgb_arrays() -> None:
    made = neighbours.as_pixels([Image.new("L", (4, 2), 7), Image.new("RGBA", (4, 2), (1, 2, 3, 255))])
    assert made.shape == (2, 2, 4, 3)
    assert made[1, 0, 0].tolist() == [1, 2, 3]
