"""What stands still behind all objects: the road with its lanes, the ground beside it, a skyline and the sky.

The car drives along the middle line of a road of constant curvature, where each place looks like the others. So the
place on the road that a pixel shows changes only along the road, and only by how far the car has driven: a picture is
one look-up with a shift. The skyline turns with the car in the same way.
"""

from __future__ import annotations

import math

import numpy as np

from multimodal_zoo.data.scenes.rig import Camera
from multimodal_zoo.data.scenes.road import Road

#: The ground repeats along the road, metres; it ends that far beside it.
PERIOD, WIDE = 24.0, 32.0
#: Metres of a pixel of the ground, finer near the car.
LEVELS = (0.1, 0.2, 0.4, 0.8)
#: Beyond that distance, metres, the ground is haze.
FAR = 140.0
#: Skyline: pixels around and up, and the height of its picture, radians.
AROUND, UP, HIGH = 720, 64, 0.5
#: Middles of lines, metres to the left; and whether they are dashed.
LINES = ((-1.85, True), (1.85, False), (5.45, True), (-3.3, False), (9.1, False))
#: From and to, metres to the left: asphalt, and the pavements beside it.
ASPHALT, PAVEMENTS = (-6.4, 9.3), ((-9.4, -6.4), (9.3, 12.3))


class Backdrop:
    """Backdrops of one camera on one road.

    Args:
        camera: where it sits.
        road: its curvature matters only.
        paint: colours, see `BackdropPaint`.
        width: of the picture, pixels.
        height: the same.
    """

    def __init__(self, camera: Camera, road: Road, paint: BackdropPaint, width: int, height: int) -> None:
        v, u = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
        pixels = np.stack([u, v, np.ones_like(u)], axis=-1).astype(np.float64)
        rays = pixels @ np.linalg.inv(camera.intrinsic(width, height)).T @ camera.rotation().T
        x, y, z = rays[..., 0], rays[..., 1], rays[..., 2]
        reach = camera.translation[2] / np.maximum(-z, 1e-9)
        ground = (z < 0) & (reach * np.hypot(x, y) < FAR)
        points = np.stack([x, y], axis=-1) * np.where(ground, reach, 0.0)[..., None] + camera.translation[:2]
        along, beside = road.around(points)
        # A pixel covers about distance / focal length across and distance^2 / (focal length height) along.
        distance = np.where(ground, reach * np.linalg.norm(rays, axis=-1), 1.0)
        covered = distance**1.5 / camera.intrinsic(width, height)[0, 0] / camera.translation[2] ** 0.5
        level = np.clip(np.log2(covered / LEVELS[0]).round(), 0, len(LEVELS) - 1).astype(np.int64)
        metres = np.array(LEVELS)[level]
        azimuth, elevation = np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))
        widths = np.where(ground, np.array(paint.widths)[level], AROUND)
        place = np.where(ground, along / metres, azimuth * AROUND / (2 * math.pi)) % widths
        row = np.where(ground, paint.ground_row(level, beside), paint.sky_row(elevation))
        self.colours = paint.colours
        self.first = row.astype(np.int32)
        # Below the width also as float32, so that the sum of two stays in the doubled row.
        self.place = np.minimum(place, widths - 0.01).astype(np.float32)
        self.kind = np.where(ground, level, len(LEVELS)).astype(np.int8)

    def picture(self, along: float, heading: float) -> np.ndarray:
        """Uint8 `(height, width, 3)` for a car that is at `along` metres of the road and drives at a heading."""
        shifts = [along % PERIOD / metres for metres in LEVELS] + [heading / (2 * math.pi) % 1 * AROUND]
        column = self.place + np.array(shifts, np.float32).take(self.kind)
        pixels = self.colours.take(self.first + column.astype(np.int32))
        return np.ascontiguousarray(pixels.view(np.uint8).reshape(*pixels.shape, 4)[..., :3])


class BackdropPaint:
    """The colours of a road's ground, in several sizes, and of its skyline, as one list of pixels.

    Args:
        random: draws the colours.
    """

    def __init__(self, random: np.random.Generator) -> None:
        ground = _ground(random)
        pieces, self.widths, self.rows, self.starts = [], [], [], []
        start = 0
        for level, _ in enumerate(LEVELS):
            self.starts.append(start)
            self.rows.append(ground.shape[0])
            self.widths.append(ground.shape[1])
            pieces.append(_doubled(ground))
            start += len(pieces[-1])
            if level + 1 < len(LEVELS):
                ground = ground.reshape(ground.shape[0] // 2, 2, ground.shape[1] // 2, 2, 3).mean((1, 3))
        self.sky_start = start
        pieces.append(_doubled(_sky(random)))
        #: uint32, the bytes of red, green, blue and nothing: one look-up finds all of them.
        self.colours = np.concatenate(pieces)

    def ground_row(self, level: np.ndarray, beside: np.ndarray) -> np.ndarray:
        """Index of the first pixel of the row that shows the ground `beside` metres to the left of the middle line."""
        rows = np.array(self.rows)[level]
        row = np.clip((beside + WIDE) / (2 * WIDE) * rows, 0, rows - 1).astype(np.int64)
        return np.array(self.starts)[level] + row * 2 * np.array(self.widths)[level]

    def sky_row(self, elevation: np.ndarray) -> np.ndarray:
        """The same for a direction so many radians above the horizon; haze below it."""
        row = np.clip(elevation / HIGH * UP, 0, UP - 1).astype(np.int64)
        return self.sky_start + row * 2 * AROUND


def _doubled(colours: np.ndarray) -> np.ndarray:
    """Colours `(rows, columns, 3)` as a list of pixels; each row follows itself once, so that a shift needs no turn."""
    bytes_ = np.zeros((*colours.shape[:2], 4), np.uint8)
    bytes_[..., :3] = colours.clip(0, 255)
    return np.tile(bytes_.view(np.uint32)[..., 0], (1, 2)).reshape(-1)


def _ground(random: np.random.Generator) -> np.ndarray:
    """The finest ground, float `(2 WIDE / 0.1, PERIOD / 0.1, 3)`."""
    rows, columns = round(2 * WIDE / LEVELS[0]), round(PERIOD / LEVELS[0])
    beside = (np.arange(rows) + 0.5) * LEVELS[0] - WIDE
    along = (np.arange(columns) + 0.5) * LEVELS[0]
    grass = np.array([96, 116, 66]) + random.uniform(-18, 18, 3)
    asphalt = np.full(3, random.uniform(78, 112)) + random.uniform(-4, 4, 3)
    colours = np.empty((rows, columns, 3))
    colours[:] = grass
    colours[(beside > ASPHALT[0]) & (beside < ASPHALT[1])] = asphalt
    slabs = np.where((along % 2 < 0.1)[:, None], 130.0, random.uniform(150, 178))
    for low, high in PAVEMENTS:
        colours[(beside > low) & (beside < high)] = slabs
    for middle, dashed in LINES:
        drawn = (along % 6 < 3) if dashed else np.ones(columns, bool)
        colours[np.ix_(abs(beside - middle) < 0.1, drawn)] = 225.0
    blotches = np.kron(random.normal(0, 5, (rows // 8, columns // 8)), np.ones((8, 8)))
    return colours + (blotches + random.normal(0, 5, (rows, columns)))[..., None]


def _sky(random: np.random.Generator) -> np.ndarray:
    """The sky over a skyline of houses, float `(UP, AROUND, 3)`, row 0 at the horizon."""
    height = (np.arange(UP) + 0.5)[:, None] / UP
    haze, top = np.array([200, 206, 212]), np.array([96, 140, 206]) + random.uniform(-20, 20, 3)
    sky = np.broadcast_to(haze + (top - haze) * height[..., None], (UP, AROUND, 3)).copy()
    houses = np.repeat(random.uniform(0.02, 0.16, AROUND // 12), 12)
    shades = np.repeat(random.uniform(110, 176, AROUND // 12), 12)
    built = height < houses
    sky[built] = np.broadcast_to(shades, (UP, AROUND))[built][:, None] * np.array([0.96, 0.98, 1.0])
    return sky
