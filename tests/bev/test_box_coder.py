"""Coding of boxes: there and back, closed forms, the halves of a yaw."""

from __future__ import annotations

import math

import pytest
import torch
from plain_boxes import scattered
from torch.testing import assert_close

from multimodal_zoo.bev.box_coder import YawHalves, decode, encode, sine_difference


@pytest.mark.parametrize("numbers", [7, 9])
def test_there_and_back(numbers: int) -> None:
    anchors, boxes = (scattered(40, 30.0, seed)[0][:, :numbers] for seed in (0, 1))
    assert_close(decode(anchors, encode(anchors, boxes)), boxes, atol=1e-12, rtol=1e-12)
    many = encode(anchors[None], boxes[:, None])  # every box from every anchor
    assert many.shape == (40, 40, numbers)
    assert_close(many[3, 5], encode(anchors[5], boxes[3]))
    assert decode(anchors[:0], boxes[:0]).shape == (0, numbers)


def test_what_the_numbers_are() -> None:
    anchor = torch.tensor([10.0, 20.0, -1.8, 3.0, 4.0, 2.0, 1.57, 0.0, 0.0])
    box = torch.tensor([15.0, 10.0, -1.0, 6.0, 2.0, 1.0, 0.07, 1.5, -2.5])
    wanted = [1.0, -2.0, ((-1.0 + 0.5) - (-1.8 + 1.0)) / 2, math.log(2), math.log(0.5), math.log(0.5), -1.5, 1.5, -2.5]
    assert_close(encode(anchor, box), torch.tensor(wanted))


def test_gradients_of_decoding() -> None:
    anchors, deltas = scattered(5, 3.0)[0], 0.3 * scattered(5, 1.0, 1)[0]
    assert torch.autograd.gradcheck(lambda given: decode(anchors, given), deltas.requires_grad_())


def test_sine_difference() -> None:
    predicted, target = (scattered(30, 3.0, seed)[0] for seed in (0, 1))
    first, second = sine_difference(predicted, target)
    assert_close((first - second)[:, 6], (predicted - target)[:, 6].sin())
    half = target + math.pi * torch.eye(9, dtype=torch.float64)[6]
    same, opposite = sine_difference(target, half)
    assert_close(same[:, 6], opposite[:, 6])
    for before, after in ((predicted, first), (target, second)):
        assert torch.equal(before[:, :6], after[:, :6])
        assert torch.equal(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("offset", [0.0, 0.7854, 2.0])
@pytest.mark.parametrize("limit", [0.0, 0.5, 1.0])
def test_a_yaw_known_up_to_half_a_turn_comes_back(offset: float, limit: float) -> None:
    yaw = torch.linspace(-9.003, 9, 181, dtype=torch.float64)
    halves = YawHalves(offset, limit)
    target = halves.target(yaw)
    wanted = [int(((one - offset) % (2 * math.pi)) >= math.pi) for one in yaw.tolist()]
    assert target.tolist() == wanted
    if limit == 0.0:  # the decoded yaw begins where the first half does
        turned = halves.resolve(yaw + math.pi * torch.randint(-3, 3, yaw.shape).double(), target)
        whole = (turned - yaw) / (2 * math.pi)
        assert_close(whole, whole.round(), atol=1e-9, rtol=0)
    found = halves.resolve(yaw, torch.zeros_like(target)) - offset
    assert bool(((found >= -limit * math.pi - 1e-9) & (found < (1 - limit) * math.pi + 1e-9)).all())
