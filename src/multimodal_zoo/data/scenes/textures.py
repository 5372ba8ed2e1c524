"""What the sides of objects look like; the front differs from the rear, so that a heading can be seen.

A texture is uint8 `(SIDE, SIDE, 3)`, row 0 at the top, column 0 at the left of somebody who looks at that side. A
painting is a list of rectangles in hundredths of the side: left, top, right, bottom and a colour.
"""

from __future__ import annotations

import numpy as np

SIDE = 32
#: The sides of an object, in the order of `paint`; nobody looks at its bottom.
SIDES = ("front", "rear", "left", "right", "top")

Colour = tuple[int, int, int]
Mark = tuple[int, int, int, int, Colour]

GLASS, DARK, TYRE, WHITE, GREY = (52, 66, 82), (40, 40, 44), (22, 22, 24), (246, 246, 240), (150, 152, 156)
LAMP, RED, YELLOW, ORANGE, SKIN = (255, 252, 205), (205, 20, 24), (238, 186, 32), (244, 112, 28), (222, 176, 144)
#: Colours that objects of a class come in.
PALETTES: dict[str, tuple[Colour, ...]] = {
    "car": ((176, 36, 38), (38, 76, 156), (214, 216, 220), (60, 62, 66), (32, 112, 74), (216, 178, 60)),
    "truck": ((200, 80, 32), (52, 108, 164), (188, 190, 192), (124, 32, 40)),
    "trailer": ((168, 172, 180), (136, 148, 166)),
    "bus": ((208, 168, 24), (176, 30, 46), (36, 130, 150)),
    "construction_vehicle": ((238, 172, 20), (226, 134, 20)),
    "bicycle": ((40, 130, 190), (206, 58, 72), (60, 150, 70)),
    "motorcycle": ((152, 20, 28), (30, 34, 44), (22, 70, 128)),
    "pedestrian": ((168, 48, 60), (48, 84, 150), (84, 126, 62), (120, 76, 136), (210, 196, 150)),
    "traffic_cone": (ORANGE,),
    "barrier": ((222, 222, 218), (206, 202, 192)),
}


def paint(name: str, colour: Colour) -> np.ndarray:
    """The five sides `(5, SIDE, SIDE, 3)`, uint8, of an object of a class, in the order of `SIDES`.

    Raises:
        KeyError: a class that has no painting.
    """
    front, rear, left, top = _MARKS[name](colour)
    sides = [_painted(colour, marks) for marks in (front, rear, left)]
    return np.stack([*sides, sides[2][:, ::-1], _painted(colour, top)])


def _painted(colour: Colour, marks: list[Mark]) -> np.ndarray:
    texture = np.empty((SIDE, SIDE, 3), np.uint8)
    texture[:] = colour
    for left, top, right, bottom, shade in marks:
        edges = [round(edge * SIDE / 100) for edge in (left, top, right, bottom)]
        texture[edges[1] : edges[3], edges[0] : edges[2]] = shade
    return texture


def _wheels(*centres: int) -> list[Mark]:
    return [(centre - 8, 70, centre + 8, 100, TYRE) for centre in centres]


# Each returns the marks of front, rear, left side (the front is at its left) and top (the front is above).
Sides = tuple[list[Mark], list[Mark], list[Mark], list[Mark]]


def _car(colour: Colour) -> Sides:
    lamps: list[Mark] = [(4, 56, 28, 70, LAMP), (72, 56, 96, 70, LAMP), (30, 62, 70, 76, DARK)]
    lights: list[Mark] = [(2, 46, 22, 64, RED), (78, 46, 98, 64, RED), (36, 60, 64, 74, WHITE)]
    front: list[Mark] = [(10, 6, 90, 44, GLASS), *lamps, (0, 90, 100, 100, DARK)]
    rear: list[Mark] = [(18, 10, 82, 36, DARK), *lights, (0, 90, 100, 100, DARK)]
    windows: list[Mark] = [(26, 8, 52, 42, GLASS), (56, 8, 86, 42, GLASS), (0, 0, 18, 34, GREY)]
    left: list[Mark] = [*windows, (0, 52, 7, 64, LAMP), (95, 48, 100, 62, RED), *_wheels(20, 80)]
    return front, rear, left, [(8, 26, 92, 42, GLASS), (14, 84, 86, 92, DARK), (0, 0, 100, 4, LAMP)]


def _truck(colour: Colour) -> Sides:
    lamps: list[Mark] = [(4, 70, 24, 82, LAMP), (76, 70, 96, 82, LAMP), (28, 60, 72, 84, DARK)]
    front: list[Mark] = [(6, 22, 94, 50, GLASS), *lamps, (0, 92, 100, 100, TYRE)]
    doors: list[Mark] = [(0, 0, 100, 82, GREY), (48, 0, 52, 82, DARK), (2, 82, 20, 92, RED), (80, 82, 98, 92, RED)]
    left: list[Mark] = [(30, 0, 100, 76, GREY), (6, 22, 24, 50, GLASS), (26, 0, 30, 76, DARK), *_wheels(14, 74, 90)]
    return front, [*doors, (0, 92, 100, 100, TYRE)], left, [(0, 28, 100, 100, GREY), (0, 24, 100, 28, DARK)]


def _trailer(colour: Colour) -> Sides:
    stripes: list[Mark] = [(start, 80, start + 10, 92, RED if start % 20 else WHITE) for start in range(0, 100, 10)]
    rear: list[Mark] = [(48, 0, 52, 80, DARK), *stripes, (0, 92, 100, 100, TYRE)]
    left: list[Mark] = [(0, 30, 100, 40, (44, 82, 150)), (0, 84, 40, 100, DARK), *_wheels(72, 90)]
    return [(0, 0, 100, 12, DARK), (0, 80, 100, 100, DARK)], rear, left, [(0, 0, 100, 6, DARK), (48, 0, 52, 100, DARK)]


def _bus(colour: Colour) -> Sides:
    lamps: list[Mark] = [(4, 80, 22, 90, LAMP), (78, 80, 96, 90, LAMP)]
    front: list[Mark] = [(5, 20, 95, 68, GLASS), (20, 4, 80, 16, ORANGE), *lamps]
    rear: list[Mark] = [(16, 14, 84, 38, DARK), (2, 56, 14, 80, RED), (86, 56, 98, 80, RED), (24, 60, 76, 86, DARK)]
    windows: list[Mark] = [(start, 18, start + 13, 48, GLASS) for start in range(4, 92, 16)]
    left: list[Mark] = [*windows, (0, 56, 100, 62, WHITE), *_wheels(18, 76)]
    return front, rear, left, [(0, 0, 100, 8, GLASS), (30, 20, 70, 32, GREY), (30, 64, 70, 76, GREY)]


def _construction_vehicle(colour: Colour) -> Sides:
    front: list[Mark] = [(0, 60, 100, 100, DARK), (20, 10, 80, 42, GLASS), (0, 56, 100, 62, GREY)]
    bars: list[Mark] = [(start, 40, start + 12, 70, TYRE) for start in range(4, 100, 24)]
    rear: list[Mark] = [*bars, (8, 76, 24, 88, RED), (76, 76, 92, 88, RED)]
    air: list[Mark] = [(0, 0, 22, 58, (150, 190, 214)), (0, 58, 14, 100, DARK)]
    left: list[Mark] = [*air, (34, 8, 62, 42, GLASS), *_wheels(34, 78)]
    return front, rear, left, [(0, 0, 100, 14, DARK), (30, 24, 70, 56, GLASS)]


def _cycle(colour: Colour) -> Sides:
    rider: list[Mark] = [(0, 0, 100, 100, GREY), (25, 16, 75, 54, colour), (40, 54, 60, 100, TYRE)]
    front: list[Mark] = [*rider, (34, 0, 66, 16, SKIN), (38, 54, 62, 64, LAMP)]
    rear: list[Mark] = [*rider, (34, 0, 66, 16, DARK), (38, 56, 62, 66, RED)]
    wheels: list[Mark] = [(2, 58, 34, 100, TYRE), (66, 58, 98, 100, TYRE)]
    hubs: list[Mark] = [(11, 70, 25, 88, GREY), (75, 70, 89, 88, GREY)]
    left: list[Mark] = [(0, 0, 100, 100, GREY), (36, 16, 66, 56, colour), (36, 0, 56, 16, SKIN), *wheels, *hubs]
    return front, rear, [*left, (12, 50, 40, 56, colour)], [(0, 0, 100, 100, GREY), (30, 0, 70, 30, TYRE)]


def _motorcycle(colour: Colour) -> Sides:
    front: list[Mark] = [(0, 0, 100, 30, DARK), (30, 34, 70, 52, LAMP), (36, 60, 64, 100, TYRE)]
    rear: list[Mark] = [(0, 0, 100, 20, DARK), (28, 36, 72, 50, RED), (36, 60, 64, 100, TYRE), (40, 52, 60, 60, WHITE)]
    wheels: list[Mark] = [(0, 56, 30, 100, TYRE), (70, 56, 100, 100, TYRE)]
    left: list[Mark] = [(0, 0, 100, 22, DARK), (46, 22, 96, 34, TYRE), (0, 30, 10, 44, LAMP), *wheels]
    return front, rear, left, [(0, 8, 100, 18, DARK), (30, 50, 70, 100, TYRE)]


def _pedestrian(colour: Colour) -> Sides:
    legs: list[Mark] = [(0, 58, 100, 100, (48, 52, 74)), (46, 62, 54, 100, TYRE), (0, 94, 100, 100, TYRE)]
    hair: list[Mark] = [(0, 0, 100, 18, GREY), (26, 0, 74, 18, (70, 48, 34))]
    front: list[Mark] = [*legs, *hair, (30, 5, 70, 18, SKIN), (44, 20, 56, 58, WHITE)]
    left: list[Mark] = [*legs, *hair, (26, 6, 48, 18, SKIN), (40, 24, 62, 56, GREY)]
    return front, [*legs, *hair], left, [(26, 26, 74, 74, (70, 48, 34))]


def _traffic_cone(colour: Colour) -> Sides:
    around: list[Mark] = [(0, 24, 100, 42, WHITE), (0, 60, 100, 74, WHITE), (0, 92, 100, 100, DARK)]
    return around, around, around, [(30, 30, 70, 70, WHITE)]


def _barrier(colour: Colour) -> Sides:
    stripes: list[Mark] = [(start, 12, start + 12, 58, RED) for start in range(4, 100, 24)]
    wide: list[Mark] = [*stripes, (0, 82, 100, 100, GREY)]
    return wide, wide, [(0, 82, 100, 100, GREY)], [(0, 40, 100, 60, GREY)]


_MARKS = {
    "car": _car,
    "truck": _truck,
    "trailer": _trailer,
    "bus": _bus,
    "construction_vehicle": _construction_vehicle,
    "bicycle": _cycle,
    "motorcycle": _motorcycle,
    "pedestrian": _pedestrian,
    "traffic_cone": _traffic_cone,
    "barrier": _barrier,
}
