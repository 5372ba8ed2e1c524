"""The anchor head: channels and axes, precision, files, export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.bev.box_coder import decode
from multimodal_zoo.bev.head import AnchorHead
from multimodal_zoo.registry import build


def made(direction: bool = True, motion: int = 2) -> AnchorHead:
    """Four anchors a cell, three classes, with large weights."""
    node = {
        "type": "anchor_head",
        "in_channels": 5,
        "classes": ["car", "bus", "cone"],
        "anchors": {
            "type": "anchor_grid",
            "ranges": [[-8, -6, -1, 8, 6, -1]],
            "sizes": [[1.8, 4.4, 1.5], [1.0, 1.0, 1.0]],
            "rotations": [0, 1.57],
            "motion": motion,
        },
        "direction": {"type": "yaw_halves", "offset": 0.7854} if direction else None,
        "selection": {
            "type": "box_selection",
            "score_threshold": 0.3,
            "candidates": 0,
            "suppressions": [{"type": "rotated_suppression", "threshold": 0.2}],
        },
    }
    head: AnchorHead = build(node)
    for one in head.parameters():
        nn.init.normal_(one, std=0.5)
    return head


def test_rows_are_y_and_channels_count_anchors_first() -> None:
    head, maps = made(), torch.randn(2, 5, 4, 3)  # x, y
    said = head(maps)
    assert said.size == (3, 4)
    rows = head.rows(said)
    batch, x, y, anchor = 1, 2, 1, 3  # the second size, the second rotation
    place = (y * 4 + x) * 4 + anchor
    cell = maps[batch, :, x, y]
    for layer, found, count in zip((head.classes, head.boxes, head.directions), rows, (3, 9, 2), strict=True):
        assert layer is not None
        assert found is not None
        part = slice(anchor * count, (anchor + 1) * count)
        assert_close(found[batch, place], layer.weight[part, :, 0, 0] @ cell + layer.bias[part])  # type: ignore[index]
    grid = head.anchors.boxes(said.size)[place]
    assert_close(grid[:2], torch.tensor([-8 + (x + 0.5) * 4, -6 + (y + 0.5) * 4.0]))
    decoded = head.decoded(said)
    assert_close(decoded.boxes[batch, place, :6], decode(grid, rows.boxes[batch, place])[:6])
    assert_close(decoded.scores[batch, place], rows.classes[batch, place].sigmoid())


@pytest.mark.parametrize("direction", [True, False])
@pytest.mark.parametrize("motion", [0, 2])
def test_choosing_from_all_boxes_is_choosing_from_maps(direction: bool, motion: int) -> None:
    head = made(direction, motion)
    said = head(torch.randn(2, 5, 4, 3))
    assert (said.directions is not None) == direction
    decoded = head.decoded(said)
    for number, found in enumerate(head.select([said])):
        rows, labels = head.selection.chosen(decoded.boxes[number], decoded.scores[number])
        assert len(rows) > 3
        assert found.boxes.shape[1] == 7 + motion
        assert_close(found.boxes, decoded.boxes[number][rows])
        assert_close(found.scores, decoded.scores[number][rows, labels])
        assert torch.equal(found.labels, labels)


def test_a_batch_is_its_samples() -> None:
    head, maps = made(), torch.randn(3, 5, 4, 3)
    together = head.select([head(maps)])
    for one, found in zip(maps, together, strict=True):
        (alone,) = head.select([head(one[None])])
        for mine, theirs in zip(alone, found, strict=True):
            assert_close(mine, theirs)


def test_half_precision_decodes_in_single_and_double_stays() -> None:
    head = made()
    said = head(torch.randn(1, 5, 4, 3))
    assert head.decoded(type(said)(*(one.bfloat16() for one in said))).boxes.dtype == torch.float32
    head = head.double()
    assert head.select([head(torch.randn(1, 5, 4, 3).double())])[0].boxes.dtype == torch.float64


def test_files_gradients_and_meta(tmp_path: Path) -> None:
    head, maps = made(), torch.randn(1, 5, 4, 3, requires_grad=True)
    names = {f"{name}.{kind}" for name in ("classes", "boxes", "directions") for kind in ("weight", "bias")}
    assert set(head.state_dict()) == names  # anchors are computed, not stored
    torch.save(head.state_dict(), tmp_path / "head.pt")
    other = made()
    other.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    for mine, theirs in zip(head(maps), other(maps), strict=True):
        assert torch.equal(mine, theirs)
    decoded = head.decoded(head(maps))
    (decoded.boxes.sum() + decoded.scores.sum()).backward()
    assert maps.grad is not None
    assert bool(maps.grad.abs().sum((0, 1)).ne(0).all())
    with torch.device("meta"):
        shapes = made().decoded(made()(torch.empty(2, 5, 8, 6)))
    assert shapes.boxes.shape == (2, 6 * 8 * 4, 9)


def test_decoding_exports() -> None:
    class Decoded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = made()

        def forward(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return tuple(self.head.decoded(self.head(maps)))

    model, maps = Decoded(), torch.randn(1, 5, 4, 3)
    exported = torch.export.export(model, (maps,)).module()
    other = torch.randn(1, 5, 4, 3)
    for mine, theirs in zip(exported(other), model(other), strict=True):
        assert_close(mine, theirs)
