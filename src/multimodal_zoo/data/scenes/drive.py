"""One drive: the road, the car on it and the objects around it, at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from multimodal_zoo.data.scenes.actors import Actor, place_actors
from multimodal_zoo.data.scenes.rig import turn
from multimodal_zoo.data.scenes.road import Road

#: Lowest and highest speed of the car, m/s; it stands still in one of so many scenes.
SPEEDS, STANDING = (2.5, 11.0), 8
#: The sharpest bend, 1/m, and the most that a road turns in a scene, radians.
BEND, TURN = 1 / 60, 2.6


@dataclass(frozen=True, kw_only=True)
class Pose:
    """Where the car is at a time.

    Args:
        rotation: `(3, 3)`, directions of the ego frame in the global one.
        translation: `(3,)`, metres, z 0.
        along: metres along the road.
        heading: radians.
    """

    rotation: np.ndarray
    translation: np.ndarray
    along: float
    heading: float

    def to_ego(self, points: np.ndarray) -> np.ndarray:
        """Global points `(..., 3)` in the ego frame."""
        return (points - self.translation) @ self.rotation


@dataclass(frozen=True, kw_only=True)
class Boxes:
    """Objects at a time, in the global frame.

    Args:
        centres: `(n, 3)` of gravity, metres.
        sizes: `(n, 3)`, length, width, height.
        yaws: `(n,)`, headings, radians.
    """

    centres: np.ndarray
    sizes: np.ndarray
    yaws: np.ndarray

    def axes(self) -> np.ndarray:
        """Forward, left and up of each `(n, 3, 3)`: rows are unit vectors."""
        cosine, sine, zero = np.cos(self.yaws), np.sin(self.yaws), np.zeros_like(self.yaws)
        forward, left = np.stack([cosine, sine, zero], -1), np.stack([-sine, cosine, zero], -1)
        return np.stack([forward, left, np.broadcast_to([0.0, 0.0, 1.0], forward.shape)], axis=1)

    def corners(self) -> np.ndarray:
        """`(n, 8, 3)`: four below in turn, beginning at the front left, then the four above them."""
        signs = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])
        signs = np.concatenate([np.insert(signs, 2, -1, axis=1), np.insert(signs, 2, 1, axis=1)])
        return self.centres[:, None] + (signs * self.sizes[:, None] / 2) @ self.axes()


@dataclass(frozen=True, kw_only=True)
class Drive:
    """A car that drives evenly along a road, and the objects there.

    Args:
        road: its middle line is the car's path.
        speed: of the car, m/s.
        actors: what else is there.
    """

    road: Road
    speed: float
    actors: tuple[Actor, ...]

    @classmethod
    def drawn(cls, random: np.random.Generator, duration: float) -> Drive:
        """A drive of so many seconds."""
        speed = 0.0 if random.integers(STANDING) == 0 else float(random.uniform(*SPEEDS))
        most = min(BEND, TURN / (speed * duration + 120))
        curvature = 0.0 if random.integers(4) == 0 else float(random.uniform(-most, most))
        x, y = random.uniform(300, 1500, 2)
        road = Road(curvature=curvature, heading=float(random.uniform(-math.pi, math.pi)), origin=(float(x), float(y)))
        return cls(road=road, speed=speed, actors=tuple(place_actors(random, road, speed, duration)))

    def pose(self, time: float) -> Pose:
        """Where the car is."""
        along = self.speed * time
        place, heading = self.road.place(np.array(along), np.array(0.0))
        return Pose(
            rotation=turn(float(heading)),
            translation=np.array([*place, 0.0]),
            along=along,
            heading=float(heading),
        )

    def boxes(self, time: float) -> Boxes:
        """Where the objects are, in the order of `actors`."""
        tracks = np.array([(one.along + one.speed * time, one.beside + one.drift * time) for one in self.actors])
        tracks = tracks.reshape(-1, 2)
        sizes = np.array([one.size for one in self.actors]).reshape(-1, 3)
        places, headings = self.road.place(tracks[:, 0], tracks[:, 1])
        yaws = headings + np.array([one.yaw for one in self.actors])
        return Boxes(centres=np.concatenate([places, sizes[:, 2:] / 2], axis=1), sizes=sizes, yaws=yaws)
