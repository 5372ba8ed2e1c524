"""From maps of a head to objects, against the published order on a handful of anchors."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.bev.anchors import AnchorGrid
from multimodal_zoo.bev.box_coder import YawHalves
from multimodal_zoo.bev.head import AnchorHead
from multimodal_zoo.bev.head_maps import HeadMaps
from multimodal_zoo.bev.post_processing import BoxSelection
from multimodal_zoo.bev.suppression import CircleSuppression, RotatedSuppression

GRID = AnchorGrid([[-10, -10, -1, 10, 10, -1]], [[2.0, 4.0, 1.5]], [0.0])
SIZE = (5, 5)


def head(suppressions: list, **options) -> AnchorHead:
    """One anchor a cell, two classes."""
    selection = BoxSelection(suppressions, **{"score_threshold": 0.2, "candidates": 0, **options})
    return AnchorHead(4, ["car", "cone"], GRID, selection, YawHalves(0.7854))


def maps(scores: dict[tuple[int, int, int], float], halves: dict[tuple[int, int], int] | None = None) -> HeadMaps:
    """Maps that say: (class, row, column) has a score, everything else none."""
    classes = torch.full((1, 2, *SIZE), -9.0)
    for place, score in scores.items():
        classes[(0, *place)] = torch.logit(torch.tensor(score))
    directions = torch.zeros(1, 2, *SIZE)
    for (row, column), half in (halves or {}).items():
        directions[0, half, row, column] = 5.0
    return HeadMaps(classes, torch.zeros(1, 9, *SIZE), directions)


def test_objects_come_class_by_class_and_an_anchor_may_be_two() -> None:
    made = head([RotatedSuppression(0.2)])
    said = maps({(0, 0, 0): 0.5, (1, 0, 0): 0.9, (0, 4, 4): 0.8, (1, 2, 2): 0.3})
    (found,) = made.select([said])
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert_close(found.scores, torch.tensor([0.8, 0.5, 0.9, 0.3]))
    assert_close(found.boxes[0, :2], torch.tensor([8.0, 8.0]))  # row is y, column x
    (few,) = head([RotatedSuppression(0.2)], limit=2).select([said])
    assert_close(few.scores, torch.tensor([0.9, 0.8]))  # only then all are sorted


def test_candidates_are_the_anchors_of_highest_best_score() -> None:
    said = maps({(0, 0, 0): 0.5, (1, 0, 0): 0.4, (0, 4, 4): 0.8, (1, 2, 2): 0.6})
    (found,) = head([RotatedSuppression(0.2)], candidates=2).select([said])
    assert_close(found.scores.sort().values, torch.tensor([0.6, 0.8]))


def test_each_class_has_its_own_suppression() -> None:
    neighbours = {(0, 2, 2): 0.9, (0, 2, 3): 0.8, (1, 2, 2): 0.9, (1, 2, 3): 0.8}  # 4 m apart, 2 m wide
    (found,) = head([RotatedSuppression(0.2), CircleSuppression(16.0)]).select([maps(neighbours)])
    assert found.labels.tolist() == [0, 0, 1]
    (wide,) = head([RotatedSuppression(0.2, factor=4.0), CircleSuppression(1.0)]).select([maps(neighbours)])
    assert wide.labels.tolist() == [0, 1, 1]
    assert_close(wide.boxes[0, 3:5], torch.tensor([2.0, 4.0]))  # the factor is for the comparison alone


def test_several_passes_compete() -> None:
    first, second = maps({(0, 2, 2): 0.6}), maps({(0, 2, 2): 0.9, (0, 0, 0): 0.5})
    (found,) = head([RotatedSuppression(0.2)]).select([first, second])
    assert_close(found.scores, torch.tensor([0.9, 0.5]))


def test_the_half_decides_the_direction() -> None:
    said = maps({(0, 0, 0): 0.9, (0, 4, 4): 0.8}, {(0, 0): 0, (4, 4): 1})
    (found,) = head([RotatedSuppression(0.2)]).select([said])
    # a yaw of 0 lies in the second half (from pi + offset on) or, turned by pi, in the first
    assert_close(found.boxes[:, 6], torch.tensor([torch.pi, 2 * torch.pi]))


def test_nothing_is_found_in_silence() -> None:
    (found,) = head([RotatedSuppression(0.2)]).select([maps({})])
    assert found.boxes.shape == (0, 9)
    assert found.scores.shape == found.labels.shape == (0,)
    assert found.labels.dtype == torch.long


def test_all_boxes_before_any_choice() -> None:
    made = head([RotatedSuppression(0.2)])
    decoded = made.decoded(maps({(0, 0, 0): 0.9}))
    assert decoded.boxes.shape == (1, 25, 9)
    assert decoded.scores.shape == (1, 25, 2)
    assert float(decoded.scores[0, 0, 0]) == pytest.approx(0.9)


def test_a_new_head_expects_little() -> None:
    made = head([RotatedSuppression(0.2)])
    said = made(torch.zeros(1, 4, 5, 5))
    assert_close(said.classes.sigmoid(), torch.full((1, 2, 5, 5), 0.01))


@pytest.mark.parametrize(("options", "words"), [({"candidates": -1}, "candidates is -1"), ({"limit": 0}, "limit 0")])
def test_wrong_numbers(options, words) -> None:
    with pytest.raises(ValueError, match=words):
        BoxSelection([RotatedSuppression(0.2)], **options)
    with pytest.raises(ValueError, match="has 3 entries"):
        head([RotatedSuppression(0.2)] * 3).select([maps({})])
