"""Pictures of a drive: the backdrop, and the textured objects in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multimodal_zoo.data.scenes.backdrop import Backdrop, BackdropPaint
from multimodal_zoo.data.scenes.drive import Boxes, Drive, Pose
from multimodal_zoo.data.scenes.rasteriser import Canvas, Rectangles, draw
from multimodal_zoo.data.scenes.rig import Camera
from multimodal_zoo.data.scenes.textures import SIDES, paint

#: Objects farther away than that are not drawn, metres.
REACH = 110.0
#: Towards the light, global; and how bright it is in the shade.
SUN, SHADE = np.array([0.36, 0.48, 0.8]), 0.68
#: For each of `SIDES`: upper left corner, the way to the right and down, in half lengths forward, left and up.
CORNERS = np.array([[1, -1, 1], [-1, 1, 1], [1, 1, 1], [-1, -1, 1], [1, 1, 1]])
RIGHTS = np.array([[0, 2, 0], [0, -2, 0], [-2, 0, 0], [2, 0, 0], [0, -2, 0]])
DOWNS = np.array([[0, 0, -2], [0, 0, -2], [0, 0, -2], [0, 0, -2], [-2, 0, 0]])
NORMALS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]])


@dataclass(frozen=True)
class Shot:
    """A picture and what is on it.

    Args:
        colours: uint8 `(height, width, 3)`.
        ids: int32 `(height, width)`, number of the object from 1, 0 for none.
        covered: `(objects,)`, pixels that each would have if it stood alone.
        visible: `(objects,)`, pixels that are seen of each.
    """

    colours: np.ndarray
    ids: np.ndarray
    covered: np.ndarray
    visible: np.ndarray


class View:
    """What one camera sees of a drive.

    Args:
        camera: where it sits.
        drive: what it sees.
        backdrop_paint: colours behind all objects.
        textures: uint8 `(5 objects, rows, columns, 3)`, see `textures_of`.
        width: of the pictures, pixels.
        height: the same.
    """

    def __init__(
        self, camera: Camera, drive: Drive, backdrop_paint: BackdropPaint, textures: np.ndarray, width: int, height: int
    ) -> None:
        self.camera, self.drive, self.textures = camera, drive, textures
        self.backdrop = Backdrop(camera, drive.road, backdrop_paint, width, height)
        self.intrinsic = camera.intrinsic(width, height)

    def shot(self, time: float) -> Shot:
        """The picture at a time in seconds."""
        pose, boxes = self.drive.pose(time), self.drive.boxes(time)
        canvas = Canvas(self.backdrop.picture(pose.along, pose.heading))
        rectangles = sides_of(boxes, pose, self.camera)
        per_side = draw(canvas, rectangles, self.textures, self.intrinsic)
        count = len(boxes.yaws)
        covered = np.bincount(rectangles.ids, per_side, minlength=count + 1)[1:].astype(np.int64)
        visible = np.bincount(canvas.ids.ravel(), minlength=count + 1)[1:]
        return Shot(canvas.colours, canvas.ids, covered, visible)


def textures_of(drive: Drive) -> np.ndarray:
    """The painted sides of all objects, five each, in the order of the drive."""
    return np.concatenate([paint(one.name, one.colour) for one in drive.actors])


def to_camera(points: np.ndarray, pose: Pose, camera: Camera) -> np.ndarray:
    """Global points `(..., 3)` in the camera's frame."""
    return (pose.to_ego(points) - np.array(camera.translation)) @ camera.rotation()


def sides_of(boxes: Boxes, pose: Pose, camera: Camera) -> Rectangles:
    """The sides of the objects within `REACH` of the car, in the camera's frame."""
    near = np.nonzero(np.linalg.norm(boxes.centres - pose.translation, axis=1) < REACH)[0]
    axes = boxes.axes()[near]
    halves = axes * boxes.sizes[near][..., None] / 2  # (n, forward left up, 3)
    corners = boxes.centres[near][:, None] + CORNERS @ halves
    rotation = pose.rotation @ camera.rotation()
    light = SHADE + (1 - SHADE) * np.maximum(NORMALS @ axes @ SUN, 0)
    return Rectangles(
        corners=to_camera(corners, pose, camera).reshape(-1, 3),
        rights=(RIGHTS @ halves @ rotation).reshape(-1, 3),
        downs=(DOWNS @ halves @ rotation).reshape(-1, 3),
        ids=np.repeat(near + 1, len(SIDES)),
        textures=(near[:, None] * len(SIDES) + np.arange(len(SIDES))).reshape(-1),
        shades=light.reshape(-1),
    )
