"""The sensors on the driven car: six cameras and a LiDAR, in the arrangement that nuScenes has, with our own numbers.

Frames as in `multimodal_zoo.bev.geometry`: ego x forward, y left, z up from the ground under the car; camera x to the
right of the picture, y down, z into the scene; LiDAR x to the right of the car, y forward, z up. Metres, radians,
seconds; float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: The largest pictures, pixels; focal lengths follow the width.
FULL_SIZE = (1600, 900)


def turn(yaw: float) -> np.ndarray:
    """The rotation `(3, 3)` about z that takes x to a heading, counter-clockwise."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera and where it sits.

    Args:
        channel: name, as folders have it.
        translation: x, y, z in the ego frame.
        yaw: heading of the view, degrees, counter-clockwise from forward.
        view: angle of view across the picture, degrees.
        delay: seconds after the LiDAR's time at which it takes a picture: the LiDAR turns, cameras fire as it passes.
        pitch: degrees downwards.
    """

    channel: str
    translation: tuple[float, float, float]
    yaw: float
    view: float
    delay: float
    pitch: float = 0.5

    def rotation(self) -> np.ndarray:
        """`(3, 3)` that takes directions of the camera's frame to the ego frame."""
        axes = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
        cosine, sine = math.cos(math.radians(self.pitch)), math.sin(math.radians(self.pitch))
        down = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
        return turn(math.radians(self.yaw)) @ down @ axes

    def intrinsic(self, width: int, height: int) -> np.ndarray:
        """Focal length and principal point `(3, 3)`, pixels from the centre of the first, at a size of pictures."""
        focal = width / 2 / math.tan(math.radians(self.view) / 2)
        return np.array([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]])


#: In the order in which the published checkpoints of Fast-BEV (arXiv 2301.12511) see them.
CAMERAS = (
    Camera(channel="CAM_FRONT", translation=(1.62, 0.02, 1.58), yaw=0.0, view=70.0, delay=0.002),
    Camera(channel="CAM_FRONT_RIGHT", translation=(1.48, -0.52, 1.56), yaw=-56.0, view=70.0, delay=-0.006),
    Camera(channel="CAM_FRONT_LEFT", translation=(1.46, 0.5, 1.57), yaw=57.0, view=70.0, delay=0.009),
    Camera(channel="CAM_BACK", translation=(0.06, 0.01, 1.63), yaw=180.0, view=110.0, delay=-0.017),
    Camera(channel="CAM_BACK_LEFT", translation=(1.06, 0.47, 1.61), yaw=111.0, view=70.0, delay=0.015),
    Camera(channel="CAM_BACK_RIGHT", translation=(1.04, -0.49, 1.6), yaw=-112.0, view=70.0, delay=-0.012),
)
LIDAR = "LIDAR_TOP"
LIDAR_TRANSLATION = (0.92, 0.0, 1.86)
#: The LiDAR's y axis looks forward.
LIDAR_ROTATION = turn(-math.pi / 2)
