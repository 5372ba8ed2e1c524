"""Keeping the best of boxes that overlap, for one class: by rotated rectangles, by aligned ones, by circles.

Boxes are taken by falling score; each that is left suppresses those behind it that are too near. Which pairs are too
near is computed for all at once, and the greedy choice is the one fixed point of "a box stays if nothing that stays
before it is too near". Everything is plain tensor arithmetic, on any device, and exports with `torch.export`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import X, Y, seen_from_above
from multimodal_zoo.bev.overlaps import aligned_overlaps, rotated_overlaps
from multimodal_zoo.registry import BEV

#: Distances between centres that are held at a time.
HELD_DISTANCES = 2**22
#: Pairs whose overlap is computed at a time: so few that they stay in the processor's cache.
HELD_PAIRS = 2**13


class Pairs(NamedTuple):
    """Boxes that are near each other.

    Attributes:
        before: long (p,), the number of the box of higher score.
        behind: long (p,), that of the other.
    """

    before: Tensor
    behind: Tensor


def near_pairs(centres: Tensor, reach: Tensor) -> Pairs:
    """Pairs whose circles touch: no others can overlap.

    Args:
        centres: (n, 2), by falling score.
        reach: (n,), radius around each centre.
    """
    parts = [_near_rows(centres, reach, rows) for rows in _row_ranges(len(centres))]
    return Pairs(*(torch.cat(side) for side in zip(*parts, strict=True)))


def _row_ranges(count: int) -> Iterator[slice]:
    if torch.compiler.is_compiling():
        yield slice(0, count)
        return
    step = max(1, HELD_DISTANCES // max(1, count))
    for start in range(0, max(1, count), step):
        yield slice(start, min(start + step, count))


def _near_rows(centres: Tensor, reach: Tensor, rows: slice) -> Pairs:
    shift_x = centres[rows, None, 0] - centres[None, :, 0]
    shift_y = centres[rows, None, 1] - centres[None, :, 1]
    limit = reach[rows, None] + reach[None]
    near = shift_x.square_().add_(shift_y.square_()) <= limit.square_()
    number = torch.arange(len(centres), device=centres.device)
    near &= number[None] > number[rows, None]
    before, behind = near.nonzero(as_tuple=True)
    return Pairs(before + rows.start, behind)


def kept(count: int, pairs: Pairs) -> Tensor:
    """Which of `count` boxes stay, bool, when each that stays suppresses its partners behind it.

    Round by round the first boxes are right for good, so that the choice stops changing after at most `count` rounds;
    a handful is usual.

    Args:
        count: number of boxes, by falling score.
        pairs: those that are too near each other.
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


def _suppressed(scores: Tensor, too_near: Callable[[Tensor], Pairs]) -> Tensor:
    """Numbers of the boxes that stay, by falling score; `too_near` gets the order and gives pairs of places in it."""
    order = scores.argsort(descending=True, stable=True)
    return order[kept(len(order), too_near(order))]


def _overlapping(rectangles: Tensor, threshold: float, overlaps: Callable[[Tensor, Tensor], Tensor]) -> Pairs:
    """Pairs of rectangles `(n, 5)` whose overlap is above a threshold."""
    reach = (rectangles[:, 2].square() + rectangles[:, 3].square()).sqrt() / 2
    pairs = near_pairs(rectangles[:, :2], reach)
    if torch.compiler.is_compiling():
        above = overlaps(rectangles[pairs.before], rectangles[pairs.behind]) > threshold
    else:
        parts = zip(pairs.before.split(HELD_PAIRS), pairs.behind.split(HELD_PAIRS), strict=True)
        found = [overlaps(rectangles[first], rectangles[second]) > threshold for first, second in parts]
        above = torch.cat(found)
    return Pairs(pairs.before[above], pairs.behind[above])


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
        return _suppressed(scores, lambda order: _overlapping(rectangles[order], self.threshold, rotated_overlaps))


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
        return _suppressed(scores, lambda order: _overlapping(rectangles[order], self.threshold, _aligned))


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
        return _suppressed(scores, lambda order: self._near(boxes[order]))[: self.limit]

    def _near(self, boxes: Tensor) -> Pairs:
        centres = boxes[:, [X, Y]]
        around = near_pairs(centres, torch.full_like(centres[:, 0], 0.51 * self.squared_distance**0.5))  # some to spare
        shift = centres[around.before] - centres[around.behind]
        near = shift.square().sum(-1) <= self.squared_distance
        return Pairs(around.before[near], around.behind[near])


def _checked(threshold: float, factor: float) -> tuple[float, float]:
    if not 0 <= threshold < 1 or not factor > 0:
        raise ValueError(f"suppression.threshold is {threshold}, factor {factor}; expected a share of 1, and above 0")
    return float(threshold), float(factor)
