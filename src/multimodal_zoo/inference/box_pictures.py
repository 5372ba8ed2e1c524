"""Boxes drawn where people look: into the pictures of the cameras, and onto a map seen from above."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from multimodal_zoo.bev.boxes import CLASSES, VX, VY, X, Y, corners, gravity_centres

#: A colour for each class, red, green, blue.
COLOURS = (
    (255, 158, 0), (255, 99, 71), (255, 140, 0), (255, 127, 80), (233, 150, 70), (220, 20, 60), (255, 61, 99),
    (0, 0, 230), (47, 79, 79), (112, 128, 144),
)  # fmt: skip
#: Pairs of corners that a box's edges join (see `bev.boxes.corners`), and those of its front.
EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))
FRONT = ((0, 3), (4, 7), (0, 7), (3, 4))
#: Metres in front of a camera from which on edges are drawn.
NEAR = 0.5
TRUTH = (0, 150, 60)


def boxes_in_camera(
    picture: Image.Image,
    lidar_to_image: Tensor,
    boxes: Tensor,
    labels: Tensor,
    colour: tuple[int, int, int] | None = None,
) -> Image.Image:
    """A copy of a picture with the edges of boxes; the front is crossed.

    Args:
        picture: as the matrix knows it.
        lidar_to_image: float64 (4, 4), from the LiDAR frame to pixels times depth.
        boxes: (n, 9), see `bev.boxes`.
        labels: long (n,).
        colour: of all boxes; None for the colours of classes.
    """
    drawn = picture.convert("RGB").copy()
    pen = ImageDraw.Draw(drawn)
    places = corners(boxes.double())
    ends = torch.cat((places, torch.ones_like(places[..., :1])), dim=-1) @ lidar_to_image.double().mT
    for box, label in zip(ends, labels.tolist(), strict=True):
        for first, second in (*EDGES, *FRONT):
            line = _clipped(box[first, :3], box[second, :3])
            if line is not None:
                pen.line(line, fill=colour or COLOURS[label % len(COLOURS)], width=max(1, picture.width // 400))
    return drawn


def _clipped(first: Tensor, second: Tensor) -> list[tuple[float, float]] | None:
    """The part of an edge in front of the camera, in pixels; None if there is none."""
    if float(first[2]) < NEAR and float(second[2]) < NEAR:
        return None
    ends = []
    for one, other in ((first, second), (second, first)):
        point = one
        if float(one[2]) < NEAR:
            share = (NEAR - one[2]) / (other[2] - one[2])
            point = one + share * (other - one)
        ends.append((float(point[0] / point[2]), float(point[1] / point[2])))
    return ends if all(abs(value) < 1e5 for end in ends for value in end) else None


def boxes_from_above(
    boxes: Tensor,
    labels: Tensor,
    truth: Tensor | None = None,
    *,
    reach: float = 50.0,
    side: int = 600,
    scores: Tensor | None = None,
) -> Image.Image:
    """A square map around the car, forward upwards, with rings every 10 m; a line leads where a box faces.

    Args:
        boxes: (n, 9), see `bev.boxes`.
        labels: long (n,).
        truth: (m, 9), what is really there, in green below the others; None for no such.
        reach: metres from the car to an edge.
        side: pixels of an edge.
        scores: (n,), boxes of low scores are paler; None for all alike.
    """
    drawn = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(drawn, "RGBA")
    scale = side / (2 * reach)

    def pixel(point: Tensor) -> tuple[float, float]:
        """Of metres to the right and forward."""
        return side / 2 + float(point[0]) * scale, side / 2 - float(point[1]) * scale

    for ring in range(10, int(reach) + 1, 10):
        reached = ring * scale
        around = (side / 2 - reached, side / 2 - reached, side / 2 + reached, side / 2 + reached)
        pen.ellipse(around, outline=(225, 225, 225, 255))
    pen.polygon(
        [(side / 2 - 4, side / 2 + 6), (side / 2, side / 2 - 8), (side / 2 + 4, side / 2 + 6)], fill=(0, 0, 0, 255)
    )
    alpha = [255] * len(boxes) if scores is None else [int(70 + 185 * min(1.0, one)) for one in scores.tolist()]
    layers = [] if truth is None else [(truth, [(*TRUTH, 255)] * len(truth), 3)]
    colours = [(*COLOURS[label % len(COLOURS)], a) for label, a in zip(labels.tolist(), alpha, strict=True)]
    for rows, fills, width in (*layers, (boxes, colours, 2)):
        for box, bottom, centre, fill in zip(rows, corners(rows), gravity_centres(rows), fills, strict=True):
            outline = [pixel(bottom[number]) for number in (0, 1, 2, 3, 0)]
            pen.line(outline, fill=fill, width=width)
            pen.line([pixel(centre), pixel((bottom[0] + bottom[3]) / 2)], fill=fill, width=width)
            if box.shape[0] > VY and float(box[VX].hypot(box[VY])) > 0.5:
                pen.line([pixel(box[[X, Y]]), pixel(box[[X, Y]] + box[[VX, VY]])], fill=(*fill[:3], 110), width=1)
    return drawn


def surround_sheet(
    pictures: Mapping[str, Image.Image], above: Image.Image, rows: Sequence[Sequence[str]], width: int = 480
) -> Image.Image:
    """Pictures of cameras in rows by their names, and the map at their right.

    Args:
        pictures: camera -> picture; cameras that no row names come below.
        above: from `boxes_from_above`.
        rows: names of cameras; those that are not there leave a gap.
        width: pixels of a picture.
    """
    named = {name for row in rows for name in row}
    rest = [name for name in pictures if name not in named]
    columns = max((len(row) for row in rows), default=1)
    lines = [*rows, *(rest[start : start + columns] for start in range(0, len(rest), columns))]
    some = next(iter(pictures.values()))
    height = round(width * some.height / some.width)
    side = max(height * len(lines), width)
    sheet = Image.new("RGB", (width * columns + side, max(height * len(lines), side)), "white")
    for line, names in enumerate(lines):
        for column, name in enumerate(names):
            if name in pictures:
                small = pictures[name].resize((width, height))
                ImageDraw.Draw(small).text((6, 4), name, fill=(255, 255, 255), stroke_width=1, stroke_fill=(0, 0, 0))
                sheet.paste(small, (column * width, line * height))
    sheet.paste(above.resize((side, side)), (width * columns, 0))
    return sheet


def legend(labels: Tensor) -> str:
    """How many objects of each class, as text: `car 3, pedestrian 1`."""
    counts = {name: int((labels == number).sum()) for number, name in enumerate(CLASSES)}
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "nothing"
