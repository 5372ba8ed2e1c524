"""The loss of assigned anchors against loops, every rule of the matching, and both losses over two processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_free_anchor import CLASSES, SIZE, head, said, scene
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.bev.box_coder import encode
from multimodal_zoo.bev.head_maps import HeadMaps
from multimodal_zoo.bev.overlaps import nearest_overlaps
from multimodal_zoo.objectives import detection_targets
from multimodal_zoo.objectives.anchor_matching import BACKGROUND, IGNORED, AnchorMatching
from multimodal_zoo.objectives.assigned_anchors import AssignedAnchors
from multimodal_zoo.objectives.box_distance import BoxDistance
from multimodal_zoo.objectives.detection_targets import Objects
from multimodal_zoo.objectives.free_anchor import FreeAnchor

RULE = AnchorMatching(0.4, 0.15, 0.1)


def matched_by_hand(anchors: Tensor, objects: Objects, rule: AnchorMatching) -> list[int]:
    """What each anchor gets, anchor by anchor and object by object."""
    mine = [n for n, label in enumerate(objects.labels.tolist()) if rule.label in (None, label)]
    overlaps = nearest_overlaps(objects.boxes, anchors).tolist()
    found = []
    for place in range(len(anchors)):
        best = max((overlaps[n][place] for n in mine), default=0.0)
        own = IGNORED
        if not mine or rule.negative[0] <= best < rule.negative[1]:
            own = BACKGROUND
        if mine and best >= rule.positive:
            own = next(n for n in mine if overlaps[n][place] == best)
        found.append(own)
    for n in mine:
        best = max(overlaps[n])
        ties = [place for place, one in enumerate(overlaps[n]) if one == best]
        if best >= rule.least and rule.best_anchors != "none":
            for place in ties if rule.best_anchors == "all" else ties[:1]:
                found[place] = n
    return found


@pytest.mark.parametrize("held", [1, 100, 2**21])
@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        AnchorMatching(0.3, (0.05, 0.2), 0.05),
        AnchorMatching(0.4, 0.15, 0.1, "first"),
        AnchorMatching(0.2, 0.1, 0.1, "none"),
        AnchorMatching(0.4, 0.15, 0.1, label=1),
    ],
    ids=["all", "between", "first", "none", "label"],
)
def test_matching_equals_a_loop(rule: AnchorMatching, held: int) -> None:
    anchors = head().anchors.boxes(SIZE, dtype=torch.float64)
    for seed in range(4):
        objects = scene(seed, 5)
        objects.boxes[0] = anchors[9]  # an anchor itself, and another object of the same place
        objects.boxes[1] = objects.boxes[0]
        found = rule(anchors, objects.boxes, objects.labels, held).tolist()
        assert found == matched_by_hand(anchors, objects, rule)
    assert set(rule(anchors, objects.boxes[:0], objects.labels[:0], held).tolist()) == {BACKGROUND}


@pytest.mark.parametrize("direction", [True, False])
@pytest.mark.parametrize("several", [False, True])
def test_value_is_that_of_the_formula(several: bool, direction: bool) -> None:
    part, maps, scenes = head(direction), said(2, direction), [scene(0), scene(1, 0)]
    rules = [RULE, AnchorMatching(0.2, 0.1, 0.05, label=1)] if several else [RULE]
    objective = AssignedAnchors(BoxDistance(), rules, gamma=1.5, alpha=0.3, class_weight=2.0, positive_weight=3.0)
    anchors = part.anchors.boxes(SIZE, dtype=torch.float64)
    wanted = dict.fromkeys(("classes", "boxes", "directions"), torch.zeros((), dtype=torch.float64))
    positives = 0
    for number, objects in enumerate(scenes):
        logits, deltas, halves = (
            None if one is None else one[number].permute(1, 2, 0).reshape(len(anchors), -1) for one in maps
        )
        if several:
            assigned = [0] * len(anchors)
            for size, rule in enumerate(rules):
                places = [k for k in range(len(anchors)) if k // 2 % 2 == size]  # y, x, size, rotation
                for place, own in zip(places, matched_by_hand(anchors[places], objects, rule), strict=True):
                    assigned[place] = own
        else:
            assigned = matched_by_hand(anchors, objects, RULE)
        assert objective.assigned(part, anchors, objects).tolist() == assigned
        positives += max(1, sum(own >= 0 for own in assigned))
        for place, own in enumerate(assigned):
            target = torch.zeros(CLASSES, dtype=torch.float64)
            if own >= 0:
                target[objects.labels[own]] = 1.0
                delta = encode(anchors[place], objects.boxes[own])
                wanted["boxes"] = wanted["boxes"] + BoxDistance()(deltas[place], delta, objects.counted[own])
                if halves is not None:
                    half = part.direction.target(delta[6] + anchors[place, 6])
                    wanted["directions"] = wanted["directions"] + 0.8 * F.cross_entropy(halves[place], half)
            share = logits[place].sigmoid()
            right = torch.where(target > 0, share, 1 - share)
            focal = -(0.7 - 0.4 * target) * (1 - right) ** 1.5 * right.log()
            weight = 3.0 if own >= 0 else float(own == BACKGROUND)
            wanted["classes"] = wanted["classes"] + 2.0 * weight * focal.sum()
    found = objective.of_maps(part, maps, scenes)
    assert float(found["positives"]) == float(found["loss_weight"]) == positives
    for name, value in wanted.items():
        assert_close(found[name], value / positives, atol=1e-10, rtol=1e-10)
    leaves = [one for one in maps if one is not None]
    mine = torch.autograd.grad(found["loss"], leaves)
    for one, other in zip(mine, torch.autograd.grad(sum(wanted.values()) / positives, leaves), strict=True):
        assert_close(one, other, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("kind", ["bags", "assigned"])
def test_two_processes_are_as_one(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where one of them has no object: mean of losses and of gradients, and every map has a gradient."""
    objective: Any = FreeAnchor(BoxDistance(), 4) if kind == "bags" else AssignedAnchors(BoxDistance(), [RULE])
    part, scenes, maps = head(), [scene(0), scene(1, 2), scene(2, 0), scene(3, 0)], said(4)
    whole = objective.of_maps(part, maps, scenes)
    gradients = torch.autograd.grad(whole["loss"], list(maps))
    total = whole["loss_weight"].detach()
    monkeypatch.setattr(detection_targets, "summed", lambda sums: torch.full_like(sums, float(total)))
    monkeypatch.setattr(detection_targets, "world_size", lambda: 2)
    losses, parts = [], []
    for rows in (slice(0, 2), slice(2, 4)):
        leaves = [one[rows].detach().requires_grad_() for one in maps if one is not None]
        found = objective.of_maps(part, HeadMaps(*leaves), scenes[rows])
        losses.append(found["loss"])
        parts.append(torch.autograd.grad(found["loss"], leaves))  # would fail for a map that takes no part
    assert_close(sum(losses) / 2, whole["loss"])
    for first, second, both in zip(*parts, gradients, strict=True):
        assert_close(torch.cat([first, second]) / 2, both)


def test_what_does_not_suit_is_refused() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head()

    with pytest.raises(ValueError, match=r"objective\.matchings has 3 entries; expected 1, or 2"):
        AssignedAnchors(BoxDistance(), [RULE] * 3).check(Model())
    AssignedAnchors(BoxDistance(), [RULE] * 2).check(Model())
    with pytest.raises(ValueError, match=r"objective\.matchings has 0 entries"):
        AssignedAnchors(BoxDistance(), [])
    with pytest.raises(ValueError, match=r"matching\.best_anchors is 'some'"):
        AnchorMatching(best_anchors="some")
