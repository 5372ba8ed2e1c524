"""Boxes as differences from anchors, and the two directions of a yaw (SECOND's coding, as Fast-BEV uses it)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import HEIGHT, LENGTH, WIDTH, YAW, Z
from multimodal_zoo.bev.geometry import wrapped
from multimodal_zoo.registry import BEV


def encode(anchors: Tensor, boxes: Tensor) -> Tensor:
    """What must be added to anchors to get boxes, `(..., 7 or 9)`.

    Shifts in x and y are in diagonals of the anchor's rectangle, that of the centre of gravity in heights, sizes are
    logarithms of ratios, yaw and velocities plain differences.

    Args:
        anchors: float (..., 7 or 9), see `bev.boxes`.
        boxes: the same shape, or one that broadcasts.
    """
    shift = boxes[..., : Z + 1] - anchors[..., : Z + 1]
    height, diagonal = anchors[..., HEIGHT : HEIGHT + 1], _diagonals(anchors)
    lift = (boxes[..., HEIGHT : HEIGHT + 1] - height) / 2
    sizes = (boxes[..., WIDTH : HEIGHT + 1] / anchors[..., WIDTH : HEIGHT + 1]).log()
    plain = boxes[..., YAW:] - anchors[..., YAW:]
    return torch.cat([shift[..., :Z] / diagonal, (shift[..., Z:] + lift) / height, sizes, plain], dim=-1)


def decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    """Boxes `(..., 7 or 9)` from anchors and what `encode` gives.

    Args:
        anchors: float (..., 7 or 9), see `bev.boxes`.
        deltas: the same shape, or one that broadcasts.
    """
    height = anchors[..., HEIGHT : HEIGHT + 1]
    centre = deltas[..., :Z] * _diagonals(anchors) + anchors[..., :Z]
    sizes = deltas[..., WIDTH : HEIGHT + 1].exp() * anchors[..., WIDTH : HEIGHT + 1]
    gravity = deltas[..., Z : Z + 1] * height + anchors[..., Z : Z + 1] + height / 2
    plain = deltas[..., YAW:] + anchors[..., YAW:]
    return torch.cat([centre, gravity - sizes[..., 2:] / 2, sizes, plain], dim=-1)


def _diagonals(anchors: Tensor) -> Tensor:
    width, length = anchors[..., WIDTH : WIDTH + 1], anchors[..., LENGTH : LENGTH + 1]
    return (width.square() + length.square()).sqrt()


def sine_difference(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Differences whose yaw components are the two terms of `sin(p - t)`: equal for yaws that are half a turn apart.

    Args:
        predicted: (..., 7 or 9), as `encode` gives them.
        target: the same.

    Returns:
        predicted with `sin(p) cos(t)` and target with `cos(p) sin(t)` in place of the yaws p and t.
    """
    p, t = predicted[..., YAW : YAW + 1], target[..., YAW : YAW + 1]
    pairs = ((predicted, p.sin() * t.cos()), (target, p.cos() * t.sin()))
    first, second = (torch.cat([one[..., :YAW], term, one[..., YAW + 1 :]], dim=-1) for one, term in pairs)
    return first, second


@BEV.register_module(name="yaw_halves")
class YawHalves:
    """Which of two directions a box faces, since the sine of a difference does not tell them apart.

    Args:
        offset: where the first half begins, rad: away from the directions of most cars.
        limit_offset: the decoded yaw is brought to `[-limit_offset pi, (1 - limit_offset) pi)` behind `offset`.
    """

    def __init__(self, offset: float, limit_offset: float = 0.0) -> None:
        self.offset, self.limit_offset = float(offset), float(limit_offset)

    def target(self, yaw: Tensor) -> Tensor:
        """The half, long 0 or 1, in which a yaw (rad, any shape) lies."""
        turned = wrapped(yaw - self.offset, 0.0, 2 * math.pi)
        return (turned / math.pi).floor().long().clamp(0, 1)

    def resolve(self, yaw: Tensor, half: Tensor) -> Tensor:
        """The yaw, rad, in a predicted half.

        Args:
            yaw: decoded, known up to half a turn.
            half: long, the same shape.
        """
        return wrapped(yaw - self.offset, self.limit_offset, math.pi) + self.offset + math.pi * half.to(yaw.dtype)
