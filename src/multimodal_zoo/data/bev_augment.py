"""A whole scene mirrored, turned, scaled and moved: boxes and poses of cameras alike (Fast-BEV, arXiv 2301.12511).

The change is drawn once for a sample and goes for all of its cameras and times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import HEIGHT, VX, VY, WIDTH, YAW, X, Y
from multimodal_zoo.bev.geometry import wrapped
from multimodal_zoo.data.limits import ends, probability
from multimodal_zoo.registry import DATASETS


@dataclass(frozen=True)
class BevChange:
    """What is done to a scene, in the order of the attributes.

    Attributes:
        flip_y: whether y changes its sign (published as horizontal).
        flip_x: whether x changes its sign (published as vertical).
        angle: rotation, clockwise seen from above, in radians.
        scale: of everything, sizes and velocities too.
        translation: along x, y and z, in metres.
    """

    flip_y: bool = False
    flip_x: bool = False
    angle: float = 0.0
    scale: float = 1.0
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def matrix(self) -> Tensor:
        """Float64 (4, 4), points of the scene to points of the changed one; it may hold a scale and a mirroring."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        turn = torch.tensor([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
        signs = [-1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0, 1.0]
        found = torch.eye(4, dtype=torch.float64)
        found[:3, :3] = self.scale * turn @ torch.diag(torch.tensor(signs, dtype=torch.float64))
        found[:3, 3] = torch.tensor(self.translation, dtype=torch.float64)
        return found

    def poses(self, sensor2lidar: Tensor) -> Tensor:
        """Poses `(..., 4, 4)` of cameras in the changed scene."""
        return self.matrix() @ sensor2lidar.double()

    def boxes(self, boxes: Tensor) -> Tensor:
        """Boxes (n, 9), rows of `bev.boxes`, in the changed scene; yaw is not wrapped."""
        matrix, found = self.matrix().to(boxes.dtype), boxes.clone()
        found[:, :3] = boxes[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
        found[:, [VX, VY]] = boxes[:, [VX, VY]] @ matrix[:2, :2].T
        found[:, WIDTH : HEIGHT + 1] = boxes[:, WIDTH : HEIGHT + 1] * self.scale
        yaw = boxes[:, YAW]
        if self.flip_y:
            yaw = math.pi - yaw
        if self.flip_x:
            yaw = -yaw
        found[:, YAW] = yaw + self.angle
        return found


@DATASETS.register_module(name="bev_augment")
class BevAugment:
    """Draws what happens to a scene.

    Args:
        angle: range of the rotation, in radians.
        scale: range of the scale.
        translation: standard deviation along x, y and z, in metres.
        flip_y: how often y changes its sign, 0 to 1.
        flip_x: how often x does.

    Raises:
        ValueError: a range that runs backwards, a scale that is not positive, or no probability.
    """

    def __init__(
        self,
        angle: Sequence[float],
        scale: Sequence[float],
        translation: Sequence[float],
        flip_y: float,
        flip_x: float,
    ) -> None:
        for name, pair in (("angle", angle), ("scale", scale)):
            ends(pair, f"data.rules.bev_augment.{name}")
        if scale[0] <= 0:
            raise ValueError(f"data.rules.bev_augment.scale is {list(scale)}; expected factors above 0")
        if len(translation) != 3 or min(translation) < 0:
            raise ValueError(
                f"data.rules.bev_augment.translation is {list(translation)}; expected three values from 0 on"
            )
        for name, share in (("flip_y", flip_y), ("flip_x", flip_x)):
            probability(share, f"data.rules.bev_augment.{name}")
        self.angle, self.scale, self.translation = angle, scale, translation
        self.flip_y, self.flip_x = flip_y, flip_x

    def draw(self, random: Random) -> BevChange:
        """What happens to one scene."""
        flip_y, flip_x = random.random() < self.flip_y, random.random() < self.flip_x
        angle, scale = random.uniform(*self.angle), random.uniform(*self.scale)
        x, y, z = (random.gauss(0.0, deviation) for deviation in self.translation)
        return BevChange(flip_y, flip_x, angle, scale, (x, y, z))


def inside(boxes: Tensor, area: Sequence[float]) -> Tensor:
    """Bool (n,): boxes whose bottom centre lies in an area, its border left out; the height does not count.

    Args:
        boxes: (n, 9), rows of `bev.boxes`.
        area: least x, y, z, then largest x, y, z, in metres.
    """
    x, y = boxes[:, X], boxes[:, Y]
    return (x > area[0]) & (y > area[1]) & (x < area[3]) & (y < area[4])


def turned_home(boxes: Tensor) -> Tensor:
    """Boxes (n, 9) with yaw in [-pi, pi)."""
    found = boxes.clone()
    found[:, YAW] = wrapped(boxes[:, YAW], 0.5, 2 * math.pi)
    return found
