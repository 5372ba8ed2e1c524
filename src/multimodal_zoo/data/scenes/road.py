"""A road of constant curvature: where things are along and beside it, and where that is on the ground."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Road:
    """A straight line or a circle on the ground; everything is placed along and beside it.

    Args:
        curvature: 1/m, positive to the left, 0 for a straight road.
        heading: of the road where `along` is 0, radians from the global x.
        origin: global x and y of that place, metres.
    """

    curvature: float
    heading: float
    origin: tuple[float, float]

    def place(self, along: np.ndarray, beside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global positions `(..., 2)` and headings of the road `(...)` there.

        Args:
            along: metres along the road's middle line.
            beside: metres to the left of it.
        """
        angle = self.curvature * along
        # The chord over the arc: sin(x)/x and (1 - cos(x))/x, without a division by a curvature of 0.
        ahead = along * np.sinc(angle / math.pi) - beside * np.sin(angle)
        left = along * np.sin(angle / 2) * np.sinc(angle / 2 / math.pi) + beside * np.cos(angle)
        cosine, sine = math.cos(self.heading), math.sin(self.heading)
        x = self.origin[0] + cosine * ahead - sine * left
        y = self.origin[1] + sine * ahead + cosine * left
        return np.stack([x, y], axis=-1), self.heading + angle

    def around(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(along, beside)` of points `(..., 2)`, given from a place on the middle line, x along the road there.

        A circle looks the same from each of its places, so that neither heading nor origin enter.
        """
        x, y = points[..., 0], points[..., 1]
        if self.curvature == 0:
            return x, y
        radius = 1 / self.curvature
        side = math.copysign(1.0, radius)
        along = np.arctan2(side * x, side * (radius - y)) * radius
        return along, radius - side * np.hypot(x, radius - y)
