"""The objects of a scene: what they are, how large, where they move, and that no two of them collide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from multimodal_zoo.data.scenes.road import Road
from multimodal_zoo.data.scenes.textures import PALETTES, Colour

#: Length, width and height in metres that objects of a class have about; and how many there are on 100 m of road.
SIZES: dict[str, tuple[float, float, float]] = {
    "car": (4.6, 1.95, 1.7),
    "truck": (6.9, 2.5, 2.9),
    "trailer": (10.5, 2.7, 3.8),
    "bus": (11.0, 2.9, 3.5),
    "construction_vehicle": (6.4, 2.8, 3.2),
    "bicycle": (1.75, 0.62, 1.35),
    "motorcycle": (2.1, 0.8, 1.5),
    "pedestrian": (0.75, 0.68, 1.78),
    "traffic_cone": (0.42, 0.42, 1.05),
    "barrier": (0.55, 2.4, 1.0),
}
COUNTS = {
    "car": 9.0,
    "truck": 3.5,
    "trailer": 2.5,
    "bus": 2.5,
    "construction_vehicle": 2.5,
    "bicycle": 3.5,
    "motorcycle": 3.5,
    "pedestrian": 8.0,
    "traffic_cone": 5.0,
    "barrier": 5.0,
}
#: Sizes vary by so much, relative.
SPREAD = 0.08
#: How far before and behind the driven car objects are put, metres.
BEFORE, BEHIND = 55.0, 40.0
#: Metres that stay free between two objects, along and beside the road.
GAP = (0.6, 0.3)
EGO_SIZE = (4.7, 2.0, 1.7)
TRIES = 12


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A kind of place for an object.

    Args:
        beside: lowest and highest metres to the left of the driven car's lane.
        speed: lowest and highest along the road, m/s, negative against it.
        drift: the same to the left.
        yaw: headings to choose from, radians from that of the road; None for any.
        lane: vehicles on it drive equally fast: their speed is drawn once for a scene; "" for none, "ego" for that of
            the driven car.
    """

    beside: tuple[float, float]
    speed: tuple[float, float] = (0.0, 0.0)
    drift: tuple[float, float] = (0.0, 0.0)
    yaw: tuple[float, ...] | None = (0.0,)
    lane: str = ""


BACK, LEFTWARDS = math.pi, math.pi / 2
LANES = (
    Spot(beside=(-0.2, 0.2), lane="ego"),
    Spot(beside=(3.45, 3.85), speed=(-12.0, -4.0), yaw=(BACK,), lane="near"),
    Spot(beside=(7.1, 7.5), speed=(-8.0, -2.0), yaw=(BACK,), lane="far"),
)
PARKED = Spot(beside=(-5.0, -4.7), yaw=(0.0, 0.0, BACK))
YARDS = (Spot(beside=(-27.0, -12.0), yaw=None), Spot(beside=(15.0, 29.0), yaw=None))
PAVEMENTS = (
    Spot(beside=(-9.1, -6.8), speed=(0.7, 1.8)),
    Spot(beside=(9.7, 12.0), speed=(-1.8, -0.7), yaw=(BACK,)),
    Spot(beside=(-9.1, -6.8), speed=(-1.8, -0.7), yaw=(BACK,)),
    Spot(beside=(-9.1, -6.8), yaw=None),
    Spot(beside=(9.7, 12.0), yaw=None),
)
CROSSINGS = (
    Spot(beside=(-6.0, 4.0), drift=(0.8, 1.6), yaw=(LEFTWARDS,)),
    Spot(beside=(0.0, 9.0), drift=(-1.6, -0.8), yaw=(-LEFTWARDS,)),
)
CYCLES = Spot(beside=(-2.6, -2.5), speed=(2.5, 6.5), lane="cycles")
EDGES = (Spot(beside=(-6.3, -3.6), yaw=(LEFTWARDS, -LEFTWARDS)), Spot(beside=(12.6, 14.0), yaw=(LEFTWARDS,)))
SPOTS: dict[str, tuple[Spot, ...]] = {
    "car": (*LANES, *LANES, PARKED, PARKED, *YARDS),
    "truck": (*LANES, *YARDS),
    "trailer": (*LANES[1:], *YARDS, *YARDS),
    "bus": (*LANES, *YARDS),
    "construction_vehicle": (*YARDS, *YARDS, LANES[2]),
    "bicycle": (CYCLES, CYCLES, PAVEMENTS[0], PAVEMENTS[3], PAVEMENTS[4], LANES[2]),
    "motorcycle": (*LANES, CYCLES, PARKED, *YARDS),
    "pedestrian": (*PAVEMENTS, *CROSSINGS),
    "traffic_cone": (*EDGES, *YARDS),
    "barrier": (*EDGES, *EDGES, *YARDS),
}


@dataclass(frozen=True, kw_only=True)
class Actor:
    """One object that moves evenly along and beside the road.

    Args:
        name: its class.
        size: length, width, height, metres.
        colour: of its paint.
        along: metres along the road at time 0.
        beside: metres to the left at time 0.
        speed: m/s along.
        drift: m/s to the left.
        yaw: heading, radians from that of the road.
    """

    name: str
    size: tuple[float, float, float]
    colour: Colour
    along: float
    beside: float
    speed: float
    drift: float
    yaw: float

    def track(self, times: np.ndarray) -> np.ndarray:
        """Along and beside `(n, 2)` at times in seconds."""
        return np.stack([self.along + self.speed * times, self.beside + self.drift * times], axis=-1)

    def room(self, road: Road) -> np.ndarray:
        """Half of what it takes along and beside the road `(2,)`; on the inside of a bend it covers more of it."""
        cosine, sine = abs(math.cos(self.yaw)), abs(math.sin(self.yaw))
        length, width, _ = self.size
        inside = max(1 - road.curvature * self.beside, 0.3)
        return np.array([(length * cosine + width * sine) / inside, length * sine + width * cosine]) / 2

    def attribute(self) -> str:
        """What nuScenes says of its state; empty where it says nothing."""
        moving = self.speed != 0 or self.drift != 0
        if self.name == "pedestrian":
            return "pedestrian.moving" if moving else "pedestrian.standing"
        if self.name in ("bicycle", "motorcycle"):
            return "cycle.with_rider" if moving else "cycle.without_rider"
        if self.name in ("traffic_cone", "barrier"):
            return ""
        # Whoever stands in a yard is parked; nobody who drives stops in these scenes but with the driven car.
        return "vehicle.moving" if moving else "vehicle.parked" if abs(self.beside) > 1 else "vehicle.stopped"


def place_actors(random: np.random.Generator, road: Road, speed: float, duration: float) -> list[Actor]:
    """Objects that come near the driven car at some time and run into nothing.

    Args:
        random: draws all of them.
        road: where.
        speed: of the driven car, m/s along the road; it is at 0 at time 0.
        duration: seconds, from time 0.
    """
    speeds = {"": 0.0, "ego": speed}
    for spot in (*LANES[1:], CYCLES):
        speeds[spot.lane] = float(random.uniform(*spot.speed))
    times = np.arange(-1.5, duration + 0.25, 0.25)
    ego = Actor(name="car", size=EGO_SIZE, colour=(0, 0, 0), along=0.0, beside=0.0, speed=speed, drift=0.0, yaw=0.0)
    placed, tracks, rooms = [], [ego.track(times)], [ego.room(road)]
    stretch = (speed * duration + BEFORE + BEHIND) / 100
    # Large ones first: they find less room.
    for name in sorted(SIZES, key=lambda one: -SIZES[one][0]):
        for _ in range(round(COUNTS[name] * stretch)):
            for _ in range(TRIES):
                actor = _draw(random, name, speeds, speed, duration)
                track, room = actor.track(times), actor.room(road)
                near = abs(np.stack(tracks) - track) < (np.stack(rooms) + room + GAP)[:, None]
                if not bool(near.all(-1).any()):
                    placed.append(actor)
                    tracks.append(track)
                    rooms.append(room)
                    break
    return placed


def _draw(random: np.random.Generator, name: str, speeds: dict[str, float], ego: float, duration: float) -> Actor:
    """An object of a class somewhere near the driven car at some time."""
    spots, colours = SPOTS[name], PALETTES[name]
    spot = spots[random.integers(len(spots))]
    meeting = random.uniform(0, duration)
    there = ego * meeting + random.uniform(-BEHIND, BEFORE)
    speed = speeds[spot.lane] if spot.lane else float(random.uniform(*spot.speed))
    drift = float(random.uniform(*spot.drift))
    yaw = random.uniform(-math.pi, math.pi) if spot.yaw is None else spot.yaw[random.integers(len(spot.yaw))]
    length, width, height = (side * random.uniform(1 - SPREAD, 1 + SPREAD) for side in SIZES[name])
    return Actor(
        name=name,
        size=(length, width, height),
        colour=colours[random.integers(len(colours))],
        along=float(there - speed * meeting),
        beside=float(random.uniform(*spot.beside) - drift * meeting),
        speed=speed,
        drift=drift,
        yaw=float(yaw + random.normal(0, 0.03)),
    )
