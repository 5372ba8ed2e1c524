"""Both losses of anchor heads: what the goldens do not say (see tests/parity for the published numbers)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

sys.path.insert(0, str(Path(__file__).parents[1] / "bev"))  # made-up cameras and models

from models import detector
from rigs import rig

from multimodal_zoo.bev.box_coder import encode
from multimodal_zoo.bev.head_maps import HeadMaps
from multimodal_zoo.objectives.detection_batch import DetectionBatch
from multimodal_zoo.objectives.detection_targets import Objects, sample_objects
from multimodal_zoo.registry import build

FREE = {"type": "free_anchor", "box": {"type": "box_distance"}, "bag": 5}
ASSIGNED = {
    "type": "assigned_anchors",
    "box": {"type": "box_distance"},
    "matchings": [{"type": "anchor_matching", "positive": 0.05, "negative": 0.01, "least": 0.001}],
}
SIZE = (4, 5)
MODEL = detector()
HEAD: Any = MODEL.head
BOXES = torch.tensor(
    [[3.0, -6.0, -1.0, 2.0, 4.2, 1.6, 0.2, 1.0, -2.0], [-8.0, 5.0, -1.0, 0.7, 0.6, 1.8, 1.4, 0.0, 0.5]]
)
LABELS = torch.tensor([0, 1])


def maps(batch: int = 1, seed: int = 0) -> HeadMaps:
    """What a head of two classes and four anchors a cell could say."""
    generator = torch.Generator().manual_seed(seed)
    numbers = (HEAD.anchors.per_cell * count for count in (2, 9, 2))
    return HeadMaps(*(torch.randn(batch, one, *SIZE, generator=generator).requires_grad_() for one in numbers))


def objects(boxes: Tensor = BOXES, labels: Tensor = LABELS, known: Tensor | None = None) -> Objects:
    """Checked objects of a sample."""
    known = torch.ones(len(boxes), dtype=torch.bool) if known is None else known
    return sample_objects("one", boxes, labels, known, 2)


NONE = objects(BOXES[:0], LABELS[:0])


def loss(config: dict[str, Any], said: HeadMaps, *found: Objects) -> dict[str, Tensor]:
    """Of maps that are there."""
    return build(config).of_maps(HEAD, said, found)


@pytest.mark.parametrize("config", [FREE, ASSIGNED], ids=["free", "assigned"])
def test_scenes_without_objects_teach_that_there_is_nothing(config) -> None:
    said = maps(2)
    found = loss(config, said, NONE, NONE)
    found["loss"].backward()
    assert bool(found["loss"].isfinite())
    assert float(found["loss"].detach()) > 0
    assert bool((said.classes.grad >= 0).all())  # all scores should fall
    assert not bool(said.boxes.grad is not None and said.boxes.grad.any())


@pytest.mark.parametrize("config", [FREE, ASSIGNED], ids=["free", "assigned"])
def test_a_batch_is_weighed_by_its_objects(config) -> None:
    said = maps(2)
    whole = loss(config, said, objects(), NONE)["loss"]
    parts = [HeadMaps(*(one[n : n + 1] for one in said)) for n in range(2)]
    alone = loss(config, parts[0], objects())["loss"]
    assert float(whole) > float(alone)  # the empty scene adds what it should not say, over the same two objects
    swapped = HeadMaps(*(one.flip(0) for one in said))
    assert_close(loss(config, swapped, NONE, objects())["loss"], whole)


@pytest.mark.parametrize("config", [FREE, ASSIGNED], ids=["free", "assigned"])
@pytest.mark.parametrize("held", [1, 97])
def test_memory_changes_nothing(config, held: int) -> None:
    said, many = maps(), objects(BOXES.repeat(3, 1) + torch.randn(6, 1) * 0.3, LABELS.repeat(3))
    expected = loss(config, said, many)["loss"]
    assert_close(loss({**config, "held": held}, said, many)["loss"], expected)


@pytest.mark.parametrize("config", [FREE, ASSIGNED], ids=["free", "assigned"])
def test_velocities_that_nobody_knows_are_not_learnt(config) -> None:
    said, unknown = maps(), torch.zeros(2, dtype=torch.bool)
    changed = BOXES.clone()
    changed[:, 7:] = 50.0
    first, second = (loss(config, said, objects(boxes, known=unknown))["loss"] for boxes in (BOXES, changed))
    assert_close(first, second)
    assert float(loss(config, said, objects(changed))["loss"]) != float(first)


@pytest.mark.parametrize("config", [FREE, ASSIGNED], ids=["free", "assigned"])
def test_half_precision_is_computed_in_single(config) -> None:
    said = maps()
    half = HeadMaps(*(one.detach().bfloat16() for one in said))
    single = HeadMaps(*(one.float() for one in half))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(config, half, objects())
    assert found["loss"].dtype == torch.float32
    assert_close(found["loss"], loss(config, single, objects())["loss"])


def test_an_overlap_of_exactly_the_threshold_is_finite() -> None:
    """There the published quotient is 0 / 0, and training stopped."""
    anchors = HEAD.anchors.boxes(SIZE)
    wide = anchors[:1].clone()
    wide[0, 3:7] = torch.tensor([2.0, 2.0, 1.0, 0.0])
    wide[0, 0] += 40  # away from all else
    half = wide.clone()
    half[0, 3] = 1.0  # the same in half the width: an overlap of 0.5
    half[0, 0] = wide[0, 0] - 0.5
    said = maps()
    deltas = torch.zeros(1, SIZE[0] * SIZE[1] * HEAD.anchors.per_cell, 9)
    deltas[0, 0] = encode(anchors[:1], half)[0]
    boxes = deltas.view(1, *SIZE, -1).permute(0, 3, 1, 2).clone().requires_grad_()
    said = HeadMaps(said.classes, boxes, said.directions)
    truth = objects(wide, LABELS[:1])
    objective: Any = build(FREE)
    found = objective.found(anchors, deltas[0], truth, 2)
    assert float(found.max()) == 0.0
    result = objective.of_maps(HEAD, said, [truth])
    result["loss"].backward()
    assert bool(result["loss"].isfinite())
    assert all(bool(one.grad.isfinite().all()) for one in said)


def test_what_finds_an_object_is_not_punished() -> None:
    """An anchor whose box lies on an object has no negative term for its class, one beside it has."""
    anchors = HEAD.anchors.boxes(SIZE)
    deltas = torch.zeros(len(anchors), 9)
    nearest = int((anchors[:, :2] - BOXES[0, :2]).norm(dim=1).argmin())
    deltas[nearest] = encode(anchors[nearest : nearest + 1], BOXES[:1])[0]
    objective: Any = build(FREE)
    found = objective.found(anchors, deltas, objects(), 2)
    assert float(found[nearest, 0]) == pytest.approx(1.0)
    assert float(found[:, 0].sort(descending=True).values[1]) < 1.0


@pytest.mark.parametrize(
    ("boxes", "labels", "words"),
    [
        (torch.full((1, 9), torch.nan), torch.tensor([0]), "sample one: boxes need finite numbers"),
        (torch.zeros(1, 9), torch.tensor([0]), "sizes above 0"),
        (BOXES[:1], torch.tensor([2]), "the head has 2 classes"),
    ],
)
def test_objects_that_cannot_be_learnt(boxes, labels, words) -> None:
    with pytest.raises(ValueError, match=words):
        objects(boxes, labels)


def test_boxes_of_no_class_are_left_out() -> None:
    assert len(objects(labels=torch.tensor([-1, 1])).labels) == 1


@pytest.mark.parametrize("config", [FREE, ASSIGNED], ids=["free", "assigned"])
def test_a_detector_learns_a_scene_by_heart(config) -> None:
    torch.manual_seed(0)
    model = detector().train()
    images, cameras = torch.randn(1, 1, 3, 3, 32, 88), rig(3)
    batch = DetectionBatch(images, cameras, (BOXES,), (LABELS,), (torch.ones(2, dtype=torch.bool),), ("one",))
    objective: Any = build(config)
    objective.check(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        found = objective(model, batch)
        found["loss"].backward()
        optimizer.step()
        losses.append(float(found["loss"].detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_a_model_without_anchors_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a detector"):
        build(FREE).check(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"objective\.normalise"):
        build({**FREE, "normalise": "some"})
