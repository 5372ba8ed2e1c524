"""Textured rectangles in perspective with right occlusion: a z-buffer in numpy, one rectangle at a time.

Where the ray of a pixel p = (u, v, 1) meets the plane of a rectangle with corner c and sides a and b, all in the
camera's frame, `depth p = K (s a + t b + c)`. So `(s, t, 1) / depth = inv(K [a b c]) p`: three functions that are
linear in the pixel give both coordinates of the texture and the reciprocal of the depth, also where a rectangle
reaches behind the camera.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

#: Nothing is drawn that is nearer to the camera, metres.
NEAR = 0.1


@dataclass
class Canvas:
    """A picture that is being drawn.

    Args:
        colours: uint8 `(height, width, 3)`.

    Attributes:
        nearness: float32 `(height, width)`, 1 / depth of what is drawn there, 0 for the backdrop.
        ids: int32 `(height, width)`, number of the object that is seen there, 0 for the backdrop.
    """

    colours: np.ndarray
    nearness: np.ndarray = field(init=False)
    ids: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.nearness = np.zeros(self.colours.shape[:2], np.float32)
        self.ids = np.zeros(self.colours.shape[:2], np.int32)


@dataclass(frozen=True)
class Rectangles:
    """Rectangles in the camera's frame, metres.

    Args:
        corners: `(n, 3)`, upper left corner as the textured side shows it.
        rights: `(n, 3)`, upper side.
        downs: `(n, 3)`, left side.
        ids: `(n,)`, numbers of the objects that they belong to, from 1.
        textures: `(n,)`, index of the texture of each.
        shades: `(n,)`, brightness.
    """

    corners: np.ndarray
    rights: np.ndarray
    downs: np.ndarray
    ids: np.ndarray
    textures: np.ndarray
    shades: np.ndarray

    def facing(self) -> np.ndarray:
        """Which of them `(n,)` show their textured side to the camera."""
        outward = np.cross(self.downs, self.rights)
        return (outward * self.corners).sum(-1) < -1e-6


def draw(canvas: Canvas, rectangles: Rectangles, textures: np.ndarray, intrinsic: np.ndarray) -> np.ndarray:
    """Draw rectangles that face the camera.

    Args:
        canvas: changed in place.
        rectangles: in any order.
        textures: uint8 `(kinds, rows, columns, 3)`.
        intrinsic: `(3, 3)`, see `Camera.intrinsic`.

    Returns:
        for each rectangle `(n,)`, how many pixels it covers, hidden ones with them.
    """
    height, width = canvas.ids.shape
    covered = np.zeros(len(rectangles.ids), np.int64)
    bounds = _bounds(rectangles, intrinsic, width, height)
    drawn = np.nonzero(rectangles.facing() & (bounds[:, 0] < bounds[:, 1]) & (bounds[:, 2] < bounds[:, 3]))[0]
    sides = np.stack([rectangles.rights[drawn], rectangles.downs[drawn], rectangles.corners[drawn]], axis=-1)
    inverses = np.linalg.inv(intrinsic @ sides)
    for i, inverse in zip(drawn, inverses, strict=True):
        texture = textures[rectangles.textures[i]]
        shade = float(rectangles.shades[i])
        covered[i] = _draw_one(canvas, inverse, bounds[i], int(rectangles.ids[i]), texture, shade)
    return covered


def _draw_one(
    canvas: Canvas, inverse: np.ndarray, bounds: np.ndarray, number: int, texture: np.ndarray, shade: float
) -> int:
    left, right, top, bottom = bounds.tolist()
    u, v = np.arange(left, right, dtype=np.float64), np.arange(top, bottom, dtype=np.float64)[:, None]
    across, along, nearness = (row[0] * u + (row[1] * v + row[2]) for row in inverse)
    inside = (across >= 0) & (across < nearness) & (along >= 0) & (along < nearness) & (nearness < 1 / NEAR)
    count = int(np.count_nonzero(inside))
    block = (slice(top, bottom), slice(left, right))
    inside &= nearness > canvas.nearness[block]
    near = nearness[inside]
    rows, columns = texture.shape[:2]
    row = (along[inside] / near * rows).astype(np.intp)
    column = (across[inside] / near * columns).astype(np.intp)
    canvas.colours[block][inside] = texture[np.minimum(row, rows - 1), np.minimum(column, columns - 1)] * shade
    canvas.nearness[block][inside] = near
    canvas.ids[block][inside] = number
    return count


def _bounds(rectangles: Rectangles, intrinsic: np.ndarray, width: int, height: int) -> np.ndarray:
    """Columns and rows `(n, 4)`: first and last + 1 of both, that hold the part in front of the camera."""
    first = rectangles.corners
    second, fourth = first + rectangles.rights, first + rectangles.downs
    points = np.stack([first, second, second + rectangles.downs, fourth], axis=1)
    after = np.roll(points, -1, axis=1)
    depth, depth_after = points[..., 2], after[..., 2]
    crossing = (depth > NEAR) != (depth_after > NEAR)
    share = (NEAR - depth) / np.where(crossing, depth_after - depth, 1.0)
    cut = points + share[..., None] * (after - points)
    known = np.concatenate([depth > NEAR, crossing], axis=1)
    candidates = np.concatenate([points, cut], axis=1) @ intrinsic.T
    pixels = candidates[..., :2] / np.where(known, candidates[..., 2], 1.0)[..., None]
    low = np.where(known[..., None], pixels, np.inf).min(1)
    high = np.where(known[..., None], pixels, -np.inf).max(1)
    limit = np.array([width, height], np.float64)
    start = np.ceil(np.clip(low, 0, limit)).astype(np.int64)
    stop = np.floor(np.clip(high, -1, limit - 1)).astype(np.int64) + 1
    return np.stack([start[:, 0], stop[:, 0], start[:, 1], stop[:, 1]], axis=1)
