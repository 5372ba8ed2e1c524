"""One picture that shows what a data set looks like: all cameras at one key frame, with the boxes drawn in."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from multimodal_zoo.data.scenes.rasteriser import NEAR
from multimodal_zoo.data.scenes.recording import Recording
from multimodal_zoo.data.scenes.rig import CAMERAS
from multimodal_zoo.data.scenes.view import View, textures_of, to_camera

#: Cameras as a reader expects them around the car: ahead in the first row, behind in the second.
ROWS = (("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"), ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"))
#: Corners of `Boxes.corners` that edges join; and the ends of a stroke on the ground, from the middle to the front.
EDGES = [edge for i in range(4) for edge in ((i, (i + 1) % 4), (i + 4, (i + 1) % 4 + 4), (i, i + 4))]
LINE, FRONT = (60, 255, 90), (255, 230, 40)


def contact_sheet(recording: Recording, time: float) -> Image.Image:
    """The six cameras at a time; each object that is seen has its edges, and a stroke to its front on the ground."""
    textures = textures_of(recording.drive)
    width, height = recording.settings.width, recording.settings.height
    sheet = Image.new("RGB", (width * 3, height * 2))
    for camera in CAMERAS:
        view = View(camera, recording.drive, recording.backdrop_paint, textures, width, height)
        row = next(i for i, names in enumerate(ROWS) if camera.channel in names)
        column = ROWS[row].index(camera.channel)
        sheet.paste(_with_boxes(view, time + camera.delay), (column * width, row * height))
    return sheet


def _with_boxes(view: View, time: float) -> Image.Image:
    shot = view.shot(time)
    picture = Image.fromarray(shot.colours)
    pen = ImageDraw.Draw(picture)
    pose = view.drive.pose(time)
    corners = to_camera(view.drive.boxes(time).corners(), pose, view.camera)
    for i in np.nonzero(shot.visible)[0]:
        for first, second in EDGES:
            _stroke(pen, corners[i, first], corners[i, second], view.intrinsic, LINE)
        _stroke(pen, corners[i, :4].mean(0), corners[i, :2].mean(0), view.intrinsic, FRONT)
    pen.text((4, 4), view.camera.channel, fill=FRONT)
    return picture


def _stroke(
    pen: ImageDraw.ImageDraw, first: np.ndarray, second: np.ndarray, intrinsic: np.ndarray, colour: tuple[int, int, int]
) -> None:
    """A line between two points of the camera's frame, as far as it lies in front of the camera."""
    if first[2] > second[2]:
        first, second = second, first
    if second[2] <= NEAR:
        return
    if first[2] < NEAR:
        first = first + (second - first) * (NEAR - first[2]) / (second[2] - first[2])
    ends = [tuple((intrinsic @ point)[:2] / point[2]) for point in (first, second)]
    pen.line([*ends[0], *ends[1]], fill=colour)
