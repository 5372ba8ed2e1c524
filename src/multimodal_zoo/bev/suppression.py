"""Keeping the best of boxes that overlap, for one class: by rotated rectangles, by aligned ones, by circles.

Boxes are taken by falling score; each that stays suppresses those behind it that are too near. A block of the best is
settled at once, as the one fixed point of "a box stays if nothing that stays before it is too near"; what it suppresses
is never looked at again. Everything is plain tensor arithmetic, on any device, and exports with `torch.export` (there
all boxes are one block).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import X, Y, seen_from_above
from multimodal_zoo.bev.overlaps import aligned_overlaps, rotated_overlaps
from multimodal_zoo.registry import BEV

#: Boxes that are settled at a time.
BLOCK = 128
#: Pairs whose overlap is computed at a time: so few that they stay in the processor's cache.
HELD_PAIRS = 2**13


class Pairs(NamedTuple):
    """Boxes that are near each other.

    Attributes:
        before: long (p,), places in a list of boxes.
        behind: long (p,), places in another list, or the same.
    """

    before: Tensor
    behind: Tensor


#: numbers of boxes and of others -> pairs of places in both that are too near each other
TooNear = Callable[[Tensor, Tensor], Pairs]


def greedy(scores: Tensor, too_near: TooNear) -> Tensor:
    """Numbers, long, of the boxes that stay, by falling score.

    Args:
        scores: (n,), n may be 0.
        too_near: says which pairs do not go together.
    """
    rest = scores.argsort(descending=True, stable=True)
    if torch.compiler.is_compiling():
        return _settled(rest, too_near)
    chosen = [rest[:0]]
    while len(rest):
        block, rest = _settled(rest[:BLOCK], too_near), rest[BLOCK:]
        chosen.append(block)
        stays = torch.ones(len(rest), dtype=torch.bool, device=rest.device)
        stays[too_near(block, rest).behind] = False
        rest = rest[stays]
    return torch.cat(chosen)


def _settled(block: Tensor, too_near: TooNear) -> Tensor:
    before, behind = too_near(block, block)
    onwards = behind > before
    return block[kept(len(block), Pairs(before[onwards], behind[onwards]))]


def kept(count: int, pairs: Pairs) -> Tensor:
    """Which of `count` boxes stay, bool, when each that stays suppresses its partners behind it.

    Round by round the first boxes are right for good, so that the choice stops changing after at most `count` rounds;
    a handful is usual.

    Args:
        count: number of boxes, by falling score.
        pairs: places of those that are too near each other, the better one first.
    """
    start = torch.ones(count, dtype=torch.bool, device=pairs.before.device)
    if torch.compiler.is_compiling():
        first = _once_more(start, pairs)
        chosen, _ = torch.while_loop(
            lambda now, last: (now != last).any(),
            lambda now, last: (_once_more(now, pairs), now.clone()),
            (first, start),
        )
        return chosen
    last, now = start, _once_more(start, pairs)
    while not torch.equal(now, last):
        last, now = now, _once_more(now, pairs)
    return now


def _once_more(now: Tensor, pairs: Pairs) -> Tensor:
    hits = torch.zeros(len(now), dtype=torch.int32, device=now.device)
    return hits.index_add(0, pairs.behind, now[pairs.before].int()) == 0


def near_pairs(centres: Tensor, reach: Tensor, first: Tensor, second: Tensor) -> Pairs:
    """Places of pairs whose circles touch: no others can overlap.

    Args:
        centres: (n, 2).
        reach: (n,), radius around each centre.
        first: long (p,), numbers of boxes.
        second: long (q,), numbers of others.
    """
    shift_x = centres[first, None, 0] - centres[None, second, 0]
    shift_y = centres[first, None, 1] - centres[None, second, 1]
    limit = reach[first, None] + reach[None, second]
    return Pairs(*(shift_x.square() + shift_y.square() <= limit.square()).nonzero(as_tuple=True))


def _overlapping(rectangles: Tensor, threshold: float, overlaps: Callable[[Tensor, Tensor], Tensor]) -> TooNear:
    """Pairs of rectangles `(n, 5)` whose overlap is above a threshold."""
    reach = (rectangles[:, 2].square() + rectangles[:, 3].square()).sqrt() / 2

    def _too_near(first: Tensor, second: Tensor) -> Pairs:
        around = near_pairs(rectangles[:, :2], reach, first, second)
        pairs = first[around.before], second[around.behind]
        if torch.compiler.is_compiling():
            parts = [pairs]
        else:
            parts = list(zip(*(side.split(HELD_PAIRS) for side in pairs), strict=True))
        above = torch.cat([overlaps(rectangles[one], rectangles[other]) > threshold for one, other in parts])
        return Pairs(around.before[above], around.behind[above])

    return _too_near


def _aligned(first: Tensor, second: Tensor) -> Tensor:
    return aligned_overlaps(_corners(first), _corners(second), least=1e-8)


def _corners(rectangles: Tensor) -> Tensor:
    centre, half = rectangles[..., :2], rectangles[..., 2:4] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def _resized(boxes: Tensor, factor: float) -> Tensor:
    rectangles = seen_from_above(boxes)
    return torch.cat([rectangles[:, :2], rectangles[:, 2:4] * factor, rectangles[:, 4:]], dim=1)


@BEV.register_module(name="rotated_suppression")
class RotatedSuppression:
    """A box goes where a better one overlaps it, both as rotated rectangles.

    Args:
        threshold: intersection over union, in [0, 1), above which the worse box goes.
        factor: widths and lengths are multiplied by it for this comparison only: small objects suppress from afar.

    Raises:
        ValueError: a threshold that is no share, a factor that is not positive.
    """

    def __init__(self, threshold: float, factor: float = 1.0) -> None:
        self.threshold, self.factor = _checked(threshold, factor)

    def __call__(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """Numbers, long, of the boxes that stay, by falling score.

        Args:
            boxes: float (n, 7 or 9), see `bev.boxes`; n may be 0.
            scores: (n,).
        """
        rectangles = _resized(boxes, self.factor)
        return greedy(scores, _overlapping(rectangles, self.threshold, rotated_overlaps))


@BEV.register_module(name="aligned_suppression")
class AlignedSuppression:
    """The same with rectangles as they lie at yaw 0, whatever the yaw is.

    Args:
        threshold: intersection over union, in [0, 1), above which the worse box goes.
        factor: widths and lengths are multiplied by it for this comparison only.

    Raises:
        ValueError: a threshold that is no share, a factor that is not positive.
    """

    def __init__(self, threshold: float, factor: float = 1.0) -> None:
        self.threshold, self.factor = _checked(threshold, factor)

    def __call__(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """As that of `RotatedSuppression`."""
        rectangles = _resized(boxes, self.factor)
        return greedy(scores, _overlapping(rectangles, self.threshold, _aligned))


@BEV.register_module(name="circle_suppression")
class CircleSuppression:
    """A box goes where the centre of a better one is near (CenterPoint's rule, arXiv 2006.11275).

    Args:
        squared_distance: square metres between the centres up to which the worse box goes.
        limit: only so many of the best boxes stay; 83 in the published code.

    Raises:
        ValueError: a negative distance or a limit below one.
    """

    def __init__(self, squared_distance: float, limit: int = 83) -> None:
        if not squared_distance >= 0 or limit < 1:
            raise ValueError(
                f"circle_suppression.squared_distance is {squared_distance}, limit {limit}; expected at least 0 and 1"
            )
        self.squared_distance, self.limit = float(squared_distance), limit

    def __call__(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """As that of `RotatedSuppression`."""
        centres = boxes[:, [X, Y]]

        def _too_near(first: Tensor, second: Tensor) -> Pairs:
            shift = centres[first, None] - centres[None, second]
            return Pairs(*(shift.square().sum(-1) <= self.squared_distance).nonzero(as_tuple=True))

        return greedy(scores, _too_near)[: self.limit]


def _checked(threshold: float, factor: float) -> tuple[float, float]:
    if not 0 <= threshold < 1 or not factor > 0:
        raise ValueError(f"suppression.threshold is {threshold}, factor {factor}; expected a share of 1, and above 0")
    return float(threshold), float(factor)
