"""The loss of bags against its formula written out anchor by anchor; overlaps of exactly the threshold; counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.bev.anchors import AnchorGrid
from multimodal_zoo.bev.box_coder import YawHalves, decode, encode
from multimodal_zoo.bev.head import AnchorHead
from multimodal_zoo.bev.head_maps import HeadMaps, HeadRows
from multimodal_zoo.bev.overlaps import nearest_overlaps
from multimodal_zoo.bev.post_processing import BoxSelection
from multimodal_zoo.bev.suppression import RotatedSuppression
from multimodal_zoo.objectives.box_distance import BoxDistance
from multimodal_zoo.objectives.detection_targets import Objects, sample_objects
from multimodal_zoo.objectives.free_anchor import FreeAnchor

SIZE, CLASSES, BAG = (3, 4), 3, 4
WEIGHTS = [1.0, 2.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.2, 0.3]


def head(direction: bool = True) -> AnchorHead:
    """Four anchors in each of 3 x 4 cells, three classes."""
    grid = AnchorGrid([[-8, -6, -1, 8, 6, -1]], [[1.8, 4.4, 1.5], [2.5, 2.0, 1.0]], [0, 1.57])
    halves = YawHalves(0.7854) if direction else None
    return AnchorHead(2, [f"class {n}" for n in range(CLASSES)], grid, BoxSelection([RotatedSuppression(0.2)]), halves)


def scene(seed: int, count: int = 3) -> Objects:
    """Objects near the anchors; the velocity of the first one is not known."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=generator, dtype=torch.float64)
    boxes[:, :2] = boxes[:, :2] * torch.tensor([12.0, 9.0]) - torch.tensor([6.0, 4.5])
    boxes[:, 3:6] = 1.5 + 2 * boxes[:, 3:6]
    boxes[:, 6] = 6 * boxes[:, 6] - 3
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    return sample_objects(f"scene {seed}", boxes, labels, torch.arange(count) > 0, CLASSES)


def said(batch: int, direction: bool = True, seed: int = 5) -> HeadMaps:
    """Maps in float64."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (CLASSES, 9, 2) if direction else (CLASSES, 9)
    found = [0.5 * torch.randn(batch, 4 * n, *SIZE, generator=generator, dtype=torch.float64) for n in sizes]
    leaves = [one.requires_grad_() for one in found]
    return HeadMaps(leaves[0], leaves[1], leaves[2] if direction else None)


def by_hand(part: Any, maps: HeadMaps, scenes: list[Objects], threshold: float, gamma: float, alpha: float) -> Tensor:
    """The sum of both terms, one anchor and one object at a time."""
    anchors = part.anchors.boxes(SIZE, dtype=torch.float64)
    positive, negative, count = [], [], sum(len(one.labels) for one in scenes)
    for number, scene_objects in enumerate(scenes):
        logits, deltas, halves = (
            None if one is None else one[number].permute(1, 2, 0).reshape(len(anchors), -1) for one in maps
        )
        share = logits.sigmoid()
        boxes = decode(anchors, deltas.detach())
        for box, label, counted in zip(*scene_objects, strict=True):
            likelihoods = []
            for place in nearest_overlaps(box[None], anchors)[0].argsort(descending=True)[:BAG].tolist():
                target, distance = encode(anchors[place], box), 0.0
                for k in range(9):
                    one, other = deltas[place, k], target[k]
                    if k == 6:
                        one, other = one.sin() * other.cos(), one.cos() * other.sin()
                    gap = (one - other).abs()
                    smooth = gap**2 / 2 * 9 if gap < 1 / 9 else gap - 1 / 18
                    distance = distance + 0.8 * WEIGHTS[k] * counted[k] * smooth
                if halves is not None:
                    yaw = float(target[6] + anchors[place, 6])
                    half = int(((yaw - 0.7854) % (2 * math.pi)) >= math.pi)
                    distance = distance - 0.8 * halves[place].log_softmax(0)[half]
                likelihoods.append(share[place, label] * (-distance).exp())
            inverse = [1 / (1 - one) for one in likelihoods]
            mean = sum(w * p for w, p in zip(inverse, likelihoods, strict=True)) / sum(inverse)
            positive.append(-alpha * mean.log())
        for place in range(len(anchors)):
            for label in range(CLASSES):
                found = 0.0
                for box, mine in zip(scene_objects.boxes, scene_objects.labels, strict=True):
                    overlaps = nearest_overlaps(box[None], boxes)[0]
                    best = float(overlaps.max())
                    if int(mine) == label and best > threshold:
                        found = max(found, (float(overlaps[place]) - threshold) / (best - threshold))
                wrong = share[place, label] * (1 - found)
                negative.append(-(1 - alpha) * wrong**gamma * (1 - wrong).log())
    return sum(positive) / count + sum(negative) / (count * BAG)


@pytest.mark.parametrize(("threshold", "gamma", "alpha"), [(0.1, 2.0, 0.5), (0.3, 1.5, 0.25)])
@pytest.mark.parametrize("direction", [True, False])
def test_value_and_gradients_are_those_of_the_formula(
    direction: bool, threshold: float, gamma: float, alpha: float
) -> None:
    part, maps, scenes = head(direction), said(2, direction), [scene(0), scene(1, 2)]
    objective = FreeAnchor(BoxDistance(0.8, 1 / 9, WEIGHTS), BAG, threshold, gamma, alpha)
    leaves = [one for one in maps if one is not None]
    wanted = by_hand(part, maps, scenes, threshold, gamma, alpha)
    found = objective.of_maps(part, maps, scenes)["loss"]
    assert found.dtype == torch.float64
    assert_close(found, wanted, atol=1e-10, rtol=1e-10)
    pairs = zip(torch.autograd.grad(found, leaves), torch.autograd.grad(wanted, leaves), strict=True)
    for mine, theirs in pairs:
        assert_close(mine, theirs, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("above", [0.0, 0.1])
def test_a_best_overlap_of_exactly_the_threshold(above: float) -> None:
    """A box of half an object's width: the published quotient is 0 / 0 = NaN there, and its cross-entropy aborts."""
    part = head()
    anchors = torch.tensor(
        [[0.0, 0.0, 0.0, 1.0 + above, 2.0, 1.0, 0.0, 0.0, 0.0], [50.0, *[0.0] * 2, *[1.0] * 3, *[0.0] * 3]]
    )
    target = sample_objects(
        "half",
        torch.tensor([[0.0, 0.0, 0.0, 2.0, 2.0, 1.0, 0.0, 0.0, 0.0]]),
        torch.tensor([1]),
        torch.ones(1) > 0,
        CLASSES,
    )
    overlap = nearest_overlaps(target.boxes, anchors)
    assert (float(overlap[0, 0]) == 0.5) == (above == 0.0)
    objective = FreeAnchor(BoxDistance(), bag=2)
    found = objective.found(anchors, torch.zeros(2, 9), target, CLASSES)
    assert found.tolist() == [[0.0, float(above > 0), 0.0], [0.0, 0.0, 0.0]]
    rows = [torch.zeros(2, n, requires_grad=True) for n in (CLASSES, 9, 2)]
    sums = objective.sums(part, anchors, HeadRows(*rows), target)
    total = sums.positive + sums.negative
    total.backward()
    assert bool(total.isfinite())
    assert all(bool(one.grad.isfinite().all()) for one in rows if one.grad is not None)


def test_accumulated_batches_weigh_as_their_objects() -> None:
    part, maps, scenes = head(), said(3), [scene(0), scene(1, 1), scene(2, 0)]
    objective = FreeAnchor(BoxDistance(), BAG)
    whole = objective.of_maps(part, maps, scenes)
    assert float(whole["loss_weight"]) == float(whole["objects"]) == 4
    parts = []
    for rows in (slice(0, 1), slice(1, 3)):
        some = HeadMaps(*(None if one is None else one[rows] for one in maps))
        parts.append(objective.of_maps(part, some, scenes[rows]))
    total = sum(one["loss"] * one["loss_weight"] for one in parts) / sum(one["loss_weight"] for one in parts)
    assert_close(total, whole["loss"])
    assert "loss_weight" not in FreeAnchor(BoxDistance(), BAG, normalise="process").of_maps(part, maps, scenes)


def test_predictions_that_are_not_numbers_give_no_number_but_no_abort() -> None:
    """A step that overflowed in half precision is skipped by the scaler of gradients; an abort would end the run."""
    part, maps = head(), said(1)
    with torch.no_grad():
        maps.classes[0, 0, 0, 0] = torch.nan
    assert bool(FreeAnchor(BoxDistance(), BAG).of_maps(part, maps, [scene(0)])["loss"].isnan())


@pytest.mark.parametrize("options", [{"bag": 0}, {"held": 0}])
def test_wrong_numbers(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"objective\.{next(iter(options))} is 0"):
        FreeAnchor(BoxDistance(), **options)


def test_distances_of_boxes_of_another_number_of_numbers() -> None:
    with pytest.raises(ValueError, match=r"box\.number_weights has 9 entries; boxes have 7 numbers"):
        BoxDistance()(torch.zeros(1, 7), torch.zeros(1, 7), torch.ones(1, 7))
    with pytest.raises(ValueError, match=r"box\.beta is 0"):
        BoxDistance(beta=0.0)
    plain = BoxDistance(2.0, 1e-9, [1.0] * 7, sine=False)(torch.ones(2, 7), torch.zeros(2, 7), torch.ones(2, 7))
    assert_close(plain, torch.full((2,), 14.0))
