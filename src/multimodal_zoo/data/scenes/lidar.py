"""A LiDAR that turns once: where its rays meet objects or the ground, exactly."""

from __future__ import annotations

import math

import numpy as np

from multimodal_zoo.data.scenes.drive import Boxes, Pose
from multimodal_zoo.data.scenes.rig import LIDAR_ROTATION, LIDAR_TRANSLATION

#: Rays: how many around, and how steep, radians upwards.
AROUND = 1080
BEAMS = np.radians(np.linspace(-26.0, 9.0, 32))
#: Nothing farther away gives an answer, metres.
REACH = 70.0
#: Points lie so far behind the surface that a ray meets, metres: inside the box also after rounding to float32.
DEEPER = 0.01
#: One of so many points on the ground is kept.
GROUND_SHARE = 8


def scan(boxes: Boxes, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """The points of one turn.

    Args:
        boxes: objects at that time, global.
        pose: of the car.

    Returns:
        float32 `(points, 5)`, x, y, z in the LiDAR frame, intensity and the number of the beam, as nuScenes stores
        them; and how many of them lie on each object `(n,)`.
    """
    azimuths = np.arange(AROUND) * 2 * math.pi / AROUND
    level = np.stack([np.cos(azimuths), np.sin(azimuths)], axis=-1)
    rays = np.concatenate(
        [
            level[:, None] * np.cos(BEAMS)[:, None],
            np.broadcast_to(np.sin(BEAMS)[:, None], (AROUND, len(BEAMS), 1)),
        ],
        axis=-1,
    )
    origin = np.array(LIDAR_TRANSLATION)
    distance = np.where(rays[..., 2] < 0, -origin[2] / np.minimum(rays[..., 2], -1e-9), np.inf)
    owner, point = np.zeros((AROUND, len(BEAMS)), np.int64), distance.copy()
    centres = pose.to_ego(boxes.centres) - origin
    axes = boxes.axes() @ pose.rotation
    for i in np.nonzero(np.linalg.norm(centres, axis=1) < REACH)[0]:
        columns = _columns(centres[i], boxes.sizes[i])
        found, inside = _crossing(rays[columns], centres[i], axes[i], boxes.sizes[i])
        nearer = found < distance[columns]
        distance[columns] = np.where(nearer, found, distance[columns])
        point[columns] = np.where(nearer, inside, point[columns])
        owner[columns] = np.where(nearer, i + 1, owner[columns])
    kept = (distance < REACH) & ((owner > 0) | (np.arange(owner.size).reshape(owner.shape) % GROUND_SHARE == 0))
    points = rays[kept] * point[kept][:, None] @ LIDAR_ROTATION
    beams = np.broadcast_to(np.arange(len(BEAMS)), owner.shape)[kept]
    intensity = np.where(owner[kept] > 0, 40.0, 12.0)
    counts = np.bincount(owner[kept], minlength=len(centres) + 1)[1:]
    return np.column_stack([points, intensity, beams]).astype(np.float32), counts


def _columns(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The rays around that can meet a box: those within the angle of the circle around it."""
    distance, radius = float(np.hypot(*centre[:2])), float(np.hypot(*size[:2]) / 2)
    if distance <= radius:
        return np.arange(AROUND)
    middle = math.atan2(centre[1], centre[0]) / (2 * math.pi) * AROUND
    reach = math.asin(radius / distance) / (2 * math.pi) * AROUND
    return np.arange(math.floor(middle - reach), math.ceil(middle + reach) + 1) % AROUND


def _crossing(
    rays: np.ndarray, centre: np.ndarray, axes: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where rays `(..., 3)` from the origin enter a box, infinity for those that miss it; and a place just inside.

    Both in lengths of the ray. A ray that cuts a corner off has its place in the middle of the way through the box.
    """
    directions = rays @ axes.T
    directions = np.where(abs(directions) < 1e-12, 1e-12, directions)
    middle = axes @ centre / directions
    half = abs(size / 2 / directions)
    entry, leave = (middle - half).max(-1), (middle + half).min(-1)
    meets = (entry < leave) & (entry > 0)
    return np.where(meets, entry, np.inf), np.minimum(entry + DEEPER, (entry + leave) / 2)
