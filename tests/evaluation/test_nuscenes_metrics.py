"""nuScenes' detection metrics: closed forms, and the same written as plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from nuscenes_made_up import drawn, some, turned

from multimodal_zoo.evaluation.nuscenes_boxes import CLASS_RANGE, ERRORS, GlobalBoxes, NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_curves import match_errors, running_mean, yaw
from multimodal_zoo.evaluation.nuscenes_matching import by_score, matched, near_pairs
from multimodal_zoo.evaluation.nuscenes_metrics import class_curves, detection_scores

RULES = NuScenesProtocol()
CARS = NuScenesProtocol(classes=("car",))


def looped(truth: GlobalBoxes, found: GlobalBoxes, limit: float) -> np.ndarray:
    """Matches of one class, one detection after the other."""
    matches, taken = np.full(len(found), -1), set()
    for row in range(len(found)):
        best = math.inf
        for other in range(len(truth)):
            if truth.sample[other] == found.sample[row] and other not in taken:
                distance = math.hypot(*(truth.translation[other, :2] - found.translation[row, :2]))
                if distance < best:
                    best, matches[row] = distance, other
        if best < limit:
            taken.add(matches[row])
        else:
            matches[row] = -1
    return matches


@pytest.mark.parametrize("limit", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(("samples", "objects", "detections"), [(1, 12, 40), (5, 60, 90), (3, 80, 20)])
def test_matching_is_that_of_a_loop(limit: float, samples: int, objects: int, detections: int) -> None:
    truth, found = drawn(samples, samples, objects, detections, classes=1)
    found = by_score(found)
    assert list(found.score) == sorted(found.score, reverse=True)
    ours = matched(near_pairs(truth, found, 4.0), limit, len(found), len(truth))
    assert (ours >= 0).any()
    np.testing.assert_array_equal(ours, looped(truth, found, limit))


def test_objects_at_one_distance_go_in_order_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = some(2, translation=[[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    pairs = near_pairs(truth, some(2), 4.0)
    assert matched(pairs, 2.0, 2, 2).tolist() == [0, 1]
    assert matched(pairs, 1.0, 2, 2).tolist() == [-1, -1]  # closer than, not as close as
    truth, found = drawn(3, 4, 30, 50)
    whole = near_pairs(truth, found, 4.0)
    monkeypatch.setattr("multimodal_zoo.evaluation.nuscenes_matching.BLOCK", 7)
    for one, other in zip(whole, near_pairs(truth, found, 4.0), strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_equal_scores_the_later_detection_comes_first() -> None:
    found = some(3, score=0.5, translation=[[9.0, 0.0, 0.0], [8.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    curves = class_curves(some(1), found, CARS, 0)[2.0]
    assert curves.precision[50] == 1.0  # the match is the first of the three
    turned_round = found.take(np.array([2, 1, 0]))
    assert class_curves(some(1), turned_round, CARS, 0)[2.0].precision[50] == pytest.approx(1 / 6)


def test_perfect_detections() -> None:
    truth = some(6, translation=np.arange(18).reshape(6, 3) * 3.0, attribute=[0, 1, 2, 3, 4, 5])
    scores = detection_scores(truth, truth, CARS)
    assert scores.summary() == {
        "mAP": pytest.approx(1),
        **{f"m{name}": 0.0 for name in ERRORS},
        "NDS": pytest.approx(1),
    }
    # nine further classes of which nothing is there: no precision, errors of 1 but those that two of them have not
    scores = detection_scores(truth, truth, RULES)
    assert scores.mean_average_precision == pytest.approx(0.1)
    assert_allclose(scores.mean_errors, [9 / 10, 9 / 10, 8 / 9, 7 / 8, 7 / 8])
    assert_allclose(scores.nds, (0.5 + 0.1 + 0.1 + 1 / 9 + 1 / 8 + 1 / 8) / 10)
    assert np.isnan(scores.errors[8]).tolist() == [False, False, True, True, True]
    assert np.isnan(scores.errors[9]).tolist() == [False, False, False, True, True]


def test_average_precision_and_errors_of_a_few_boxes_by_hand() -> None:
    """Two of four objects found, a false detection between them."""
    truth = some(4, translation=[[0.0, 0, 0], [10.0, 0, 0], [20.0, 0, 0], [30.0, 0, 0]])
    places = [[0.6, 0, 0], [5.0, 0, 0], [10.0, 1.8, 0]]
    found = some(3, score=[0.9, 0.8, 0.6], translation=places, velocity=[[3.0, 4.0], [0, 0], [0, 1.0]])
    scores = detection_scores(truth, found, CARS)
    recalls = np.linspace(0, 1, 101)[11:]
    precision = np.interp(recalls, [0.25, 0.25, 0.5], [1, 0.5, 2 / 3], right=0)
    assert_allclose(scores.average_precision[0, 2:], np.maximum(precision - 0.1, 0).mean() / 0.9, rtol=1e-12)
    assert scores.average_precision[0, 0] == 0  # no centre within half a metre
    # running means of both matches over confidence: 0.9 up to recall 0.25, then falling towards 0.6 at 0.5
    confidence = np.interp(recalls[recalls <= 0.5], [0.25, 0.25, 0.5], [0.9, 0.8, 0.6])
    means = np.interp(confidence[::-1], [0.6, 0.9], [(0.6 + 1.8) / 2, 0.6])
    assert_allclose(scores.errors[0, 0], means.mean(), rtol=1e-12)
    speeds = np.interp(confidence[::-1], [0.6, 0.9], [3.0, 5.0])
    assert_allclose(scores.errors[0, 3], speeds.mean(), rtol=1e-12)


def test_errors_of_matches() -> None:
    truth = some(
        3, rotation=turned([0.1, -3.0, 3.1]), attribute=[2, -1, 2], velocity=[[1, 1], [np.nan, np.nan], [0, 0]]
    )
    found = some(
        3,
        translation=[[3, 4, 7], [0, 0, 0], [0, 0, 0]],
        size=[[1, 4, 3.0], [2, 4, 1.5], [4, 8, 3]],
        rotation=[[2.0, 0, 0, 0], turned(3.0)[0] * -5, turned(0.1)[0]],
        attribute=[2, 2, 3],
    )
    errors = match_errors(truth, found, 2 * math.pi)
    assert_allclose(errors[0], [5, 0, 0])
    assert_allclose(errors[1], [1 - 6 / 18, 0, 1 - 12 / 96])
    assert_allclose(errors[2], [0.1, 2 * math.pi - 6, 3.0])
    assert_allclose(errors[3], [math.sqrt(2), np.nan, 0])
    assert_allclose(errors[4], [0, np.nan, 1])
    assert_allclose(match_errors(truth, found, math.pi)[2], [0.1, 2 * math.pi - 6, math.pi - 3.0])


def test_only_barriers_may_be_turned_half_way() -> None:
    truth = some(4, translation=np.arange(12).reshape(4, 3) * 5.0, label=9)
    found = some(4, translation=truth.translation, label=9, rotation=turned(np.full(4, math.pi)))
    both = {
        name: detection_scores(
            some(4, translation=truth.translation), some(4, translation=truth.translation, rotation=found.rotation),
            NuScenesProtocol(classes=(name,)),
        ).errors[0, 2]
        for name in ("barrier", "car")
    }  # fmt: skip
    assert both == {"barrier": pytest.approx(0, abs=1e-12), "car": pytest.approx(math.pi)}


def test_yaw_and_running_mean() -> None:
    angles = np.array([-3.1, -0.4, 0.0, 2.9])
    assert_allclose(yaw(-3 * turned(angles)), angles)
    assert_allclose(running_mean(np.array([np.nan, 2.0, np.nan, 5.0])), [0, 2, 2, 3.5])
    assert_allclose(running_mean(np.full(2, np.nan)), [1, 1])


def plain_figures(truth: GlobalBoxes, found: GlobalBoxes, name: str, rules: Any) -> tuple[list[float], list[float]]:
    """APs and errors of one class with loops and lists: the metric's definition, one match at a time."""
    label = rules.classes.index(name)
    truth, found = truth.take(truth.label == label), by_score(found.take(found.label == label))
    precisions, errors = [], [1.0] * 5
    recalls = [step / 100 for step in range(101)]
    for limit in rules.distances:
        matches = looped(truth, found, limit)
        hits = np.cumsum(matches >= 0)
        if not len(truth) or not len(found) or not hits[-1]:
            precisions.append(0.0)
            continue
        recall = hits / len(truth)
        precision = np.interp(recalls, recall, [hit / (n + 1) for n, hit in enumerate(hits)], right=0)
        kept = [max(0, one - rules.min_precision) for one in precision[round(100 * rules.min_recall) + 1 :]]
        precisions.append(sum(kept) / len(kept) / (1 - rules.min_precision))
        if limit == rules.error_distance:
            confidence = np.interp(recalls, recall, found.score, right=0)
            rows = [(truth.take(np.array([m])), found.take(np.array([n]))) for n, m in enumerate(matches) if m >= 0]
            period = math.pi if name == "barrier" else 2 * math.pi
            each = [match_errors(*row, period)[:, 0] for row in rows]
            last = max((n for n, value in enumerate(confidence) if value), default=0)
            first = round(100 * rules.min_recall) + 1
            for kind in range(5 if last >= first else 0):
                values = [one[kind] for one in each]
                known = [[v for v in values[: n + 1] if not math.isnan(v)] for n in range(len(values))]
                means = [sum(one) / len(one) if one else 0.0 for one in known] if known[-1] else [1.0] * len(known)
                scores = [row[1].score[0] for row in rows]
                curve = np.interp(confidence[::-1], scores[::-1], means[::-1])[::-1]
                errors[kind] = float(np.mean(curve[first : last + 1]))
    return precisions, errors


@pytest.mark.parametrize(
    "rules",
    [
        RULES,
        NuScenesProtocol(distances=(1.0, 3.0), error_distance=3.0, min_recall=0.0, min_precision=0.25),
        NuScenesProtocol(classes=("barrier", "car"), min_recall=0.4, ap_weight=2),
    ],
)
def test_all_figures_are_those_of_plain_loops(rules: NuScenesProtocol) -> None:
    truth, found = drawn(7, 6, 260, 420, classes=len(rules.classes))
    scores = detection_scores(truth, found, rules)
    precisions, errors = zip(*(plain_figures(truth, found, name, rules) for name in rules.classes), strict=True)
    assert_allclose(scores.average_precision, precisions, rtol=1e-12, atol=1e-12)
    assert_allclose(np.nan_to_num(scores.errors), np.where(np.isnan(scores.errors), 0, errors), rtol=1e-12, atol=1e-12)
    assert 0 < scores.mean_average_precision < 1
    means = np.nanmean(scores.errors, axis=0)
    total = rules.ap_weight * np.mean(precisions) + sum(max(0, 1 - error) for error in means)
    assert_allclose(scores.nds, total / (rules.ap_weight + 5), rtol=1e-12)


def test_nothing_there_or_nothing_found_is_a_valid_case() -> None:
    for truth, found in ((some(0), some(3)), (some(3), some(0)), (some(0), some(0)), (some(2), some(2, translation=9))):
        scores = detection_scores(truth, found, CARS)
        assert scores.summary() == {"mAP": 0.0, **{f"m{name}": 1.0 for name in ERRORS}, "NDS": 0.0}
    alone = NuScenesProtocol(classes=("traffic_cone",))
    scores = detection_scores(some(1), some(1), alone)  # no class has an orientation
    assert math.isnan(scores.summary()["mAOE"])
    assert scores.nds == pytest.approx((5 + 2) / 10)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"score": np.nan}, "detection 0: score is nan; expected a finite number"),
        ({"translation": [[0, 0, 0], [0, np.inf, 0]]}, "detection 1: translation is .*inf"),
        ({"size": 0.0}, "detection 0: size is .*above 0, metres"),
        ({"rotation": 0.0}, "detection 0: rotation"),
        ({"velocity": np.inf}, "detection 0: velocity"),
    ],
)
def test_broken_detections_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detection_scores(some(2), some(2, **changed), CARS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"class_range": {"car": 50}}, r"protocol.class_range holds \['car'\]"),
        ({"classes": ("car", "tram")}, "tram"),
        ({"classes": ("car", "car")}, "once"),
        ({"error_distance": 3.0}, "protocol.error_distance 3.0 is none"),
        ({"min_recall": 1.0}, "protocol.min_recall is 1.0"),
        ({"min_precision": -0.1}, "min_precision -0.1"),
    ],
)
def test_rules_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NuScenesProtocol(**given)


def test_own_classes_need_ranges() -> None:
    rules = NuScenesProtocol(classes=("tram", "car"), class_range={"tram": 80, "car": CLASS_RANGE["car"]})
    assert rules.ranges.tolist() == [80.0, 50.0]
