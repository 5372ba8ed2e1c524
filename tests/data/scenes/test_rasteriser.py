"""Rectangles in perspective against the ray of each pixel, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal_zoo.data.scenes.rasteriser import NEAR, Canvas, Rectangles, draw

WIDTH, HEIGHT = 31, 23
INTRINSIC = np.array([[20.0, 0, 15.13], [0, 20.0, 11.21], [0, 0, 1]])
RANDOM = np.random.default_rng(3)
TEXTURES = RANDOM.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)


def rectangles(corners, rights, downs, shades=None) -> Rectangles:
    n = len(corners)
    values = [np.array(one, np.float64) for one in (corners, rights, downs)]
    return Rectangles(*values, np.arange(1, n + 1), np.arange(n) % 2, np.ones(n) if shades is None else shades)


def by_ray(found: Rectangles) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours, ids and coverage from the crossing of each pixel's ray with each plane."""
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ids = np.zeros((HEIGHT, WIDTH), int)
    covered = np.zeros(len(found.ids), int)
    for v in range(HEIGHT):
        for u in range(WIDTH):
            ray, nearest = np.linalg.inv(INTRINSIC) @ [u, v, 1.0], np.inf
            for i in np.nonzero(found.facing())[0]:
                a, b, c = found.rights[i], found.downs[i], found.corners[i]
                depth, s, t = np.linalg.solve(np.stack([ray, -a, -b], axis=1), c)
                if not (0 <= s < 1 and 0 <= t < 1 and depth > NEAR):
                    continue
                covered[i] += 1
                if depth < nearest:
                    nearest, ids[v, u] = depth, found.ids[i]
                    colours[v, u] = TEXTURES[found.textures[i]][int(t * 8), int(s * 8)] * found.shades[i]
    return colours, ids, covered


@pytest.mark.parametrize(
    "found",
    [
        rectangles([[-1.03, -0.52, 3]], [[2.1, 0, 0]], [[0, 1.3, 0]], np.array([0.7])),
        rectangles([[-2.03, -0.52, 2.1]], [[3.1, 0, 5.0]], [[0.2, 1.3, 0.4]]),
        rectangles([[-1.5, -1.03, 2], [-1.53, -0.52, 4]], [[3.1, 0, 3], [3.1, 0, -2.5]], [[0, 2, 0], [0, 1.1, 0]]),
        # Beside the car: from behind the camera to far ahead of it.
        rectangles([[-1.1, -1.03, -2]], [[0, 0, 9.0]], [[0, 2.2, 0]]),
        # The ground: from behind the camera to far ahead.
        rectangles([[-3.1, 1.02, 8]], [[6.3, 0, 0]], [[0, 0, -12.0]]),
    ],
    ids=["frontal", "tilted", "crossing", "beside", "below"],
)
def test_pixels_are_those_of_their_rays(found) -> None:
    canvas = Canvas(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    covered = draw(canvas, found, TEXTURES, INTRINSIC)
    colours, ids, expected = by_ray(found)
    assert expected.sum() > 40
    assert covered.tolist() == expected.tolist()
    assert (canvas.ids == ids).all()
    assert (canvas.colours == colours).all()


def test_order_does_not_matter() -> None:
    near = rectangles([[-1, -1, 2]], [[1.5, 0, 0]], [[0, 1.5, 0]])
    both = [[-1, -1, 2], [-2, -2, 5]], [[1.5, 0, 0], [4.0, 0, 0]], [[0, 1.5, 0], [0, 4.0, 0]]
    pictures = []
    for order in ([0, 1], [1, 0]):
        found = rectangles(*(np.array(one)[order] for one in both))
        canvas = Canvas(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        draw(canvas, found, TEXTURES[:1].repeat(2, 0), INTRINSIC)
        pictures.append(np.where(canvas.ids > 0, np.array([0, *(np.array(order) + 1)])[canvas.ids], 0))
    assert (pictures[0] == pictures[1]).all()
    canvas = Canvas(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (alone,) = draw(canvas, near, TEXTURES, INTRINSIC)
    assert (pictures[0] == 1).sum() == alone


@pytest.mark.parametrize(
    "found",
    [
        rectangles([[-1, -1, -3]], [[2, 0, 0]], [[0, 2, 0]]),
        rectangles([[1, -1, 3]], [[-2, 0, 0]], [[0, 2, 0]]),
        rectangles([[50, -1, 3]], [[2, 0, 0]], [[0, 2, 0]]),
        rectangles(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 3))),
    ],
    ids=["behind", "turned away", "outside", "none"],
)
def test_nothing_is_drawn_of_what_is_not_seen(found) -> None:
    canvas = Canvas(np.full((HEIGHT, WIDTH, 3), 7, np.uint8))
    assert draw(canvas, found, TEXTURES, INTRINSIC).sum() == 0
    assert (canvas.colours == 7).all()
    assert not canvas.ids.any()
