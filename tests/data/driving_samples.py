"""A tiny data set with the tables of nuScenes: two drives straight on, two cameras, a few objects."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VERSION = "v1.0-mini"
SCENES = ("scene-0061", "scene-0103")
KEY_FRAMES = 4
#: Pictures of a camera between two key frames, 12 a second.
STEP = 6
SPEED, HEADING, HEIGHT = 5.0, 0.3, 1.8
START = np.array([600.0, 1600.0, 0.0])
#: Camera -> heading in the ego frame, and microseconds after the LiDAR.
CAMERAS = {"CAM_FRONT": (0.0, 2_000), "CAM_BACK": (math.pi, 7_000)}
SIZE = (18, 32)
FOCAL = 20.0
#: Category, place at time 0 (metres ahead and left of the start), speed along the heading, size, points, attribute.
OBJECTS = (
    ("vehicle.car", (12.0, 3.0, 0.8), 2.0, (1.8, 4.2, 1.6), (9, 1), "vehicle.moving"),
    ("human.pedestrian.child", (8.0, -4.0, 0.6), 0.0, (0.5, 0.5, 1.2), (0, 2), "pedestrian.standing"),
    ("movable_object.trafficcone", (-9.0, 2.0, 0.4), 0.0, (0.4, 0.4, 0.8), (3, 0), ""),
    ("animal", (5.0, 5.0, 0.3), 0.0, (0.3, 0.6, 0.6), (4, 0), ""),
    ("static_object.bicycle_rack", (6.0, 6.0, 0.5), 0.0, (1.0, 3.0, 1.0), (5, 0), ""),
)


def quaternion(yaw: float) -> list[float]:
    """About z."""
    return [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]


def camera_quaternion(yaw: float) -> list[float]:
    """Of a camera that looks level into a heading of the ego frame."""
    a, b = quaternion(yaw), [0.5, -0.5, 0.5, -0.5]
    (w, x, y, z), (s, t, u, v) = a, b
    return [
        w * s - x * t - y * u - z * v,
        w * t + x * s + y * v - z * u,
        w * u - x * v + y * s + z * t,
        w * v + x * u - y * t + z * s,
    ]


def place(seconds: float) -> np.ndarray:
    """Where the car is."""
    return START + SPEED * seconds * np.array([math.cos(HEADING), math.sin(HEADING), 0.0])


def located(ahead: tuple[float, float, float], speed: float, seconds: float) -> list[float]:
    """Where an object is."""
    x, y, z = ahead[0] + speed * seconds, ahead[1], ahead[2]
    cosine, sine = math.cos(HEADING), math.sin(HEADING)
    return [START[0] + x * cosine - y * sine, START[1] + x * sine + y * cosine, z]


def write_drives(folder: Path) -> Path:
    """The data set in a folder."""
    tables: dict[str, list[dict[str, Any]]] = {
        "sensor": [{"token": "lidar", "channel": "LIDAR_TOP", "modality": "lidar"}],
        "calibrated_sensor": [
            {
                "token": "lidar-0",
                "sensor_token": "lidar",
                "translation": [1.0, 0.0, HEIGHT],
                "rotation": quaternion(-math.pi / 2),
                "camera_intrinsic": [],
            }
        ],
    }
    for name, (yaw, _) in CAMERAS.items():
        tables["sensor"].append({"token": name, "channel": name, "modality": "camera"})
        intrinsic = [[FOCAL, 0.0, SIZE[1] / 2], [0.0, FOCAL, SIZE[0] / 2], [0.0, 0.0, 1.0]]
        where = [1.5 * math.cos(yaw), 1.5 * math.sin(yaw), 1.5]
        row = {"translation": where, "rotation": camera_quaternion(yaw), "camera_intrinsic": intrinsic}
        tables["calibrated_sensor"].append({"token": f"{name}-0", "sensor_token": name, **row})
    for key in ("scene", "sample", "sample_data", "ego_pose", "sample_annotation", "instance"):
        tables[key] = []
    categories = sorted({one[0] for one in OBJECTS})
    tables["category"] = [{"token": name, "name": name} for name in categories]
    tables["attribute"] = [{"token": name, "name": name} for name in sorted({one[5] for one in OBJECTS} - {""})]
    for number, name in enumerate(SCENES):
        tables["scene"].append({"token": f"s{number}", "name": name})
        _drive(folder, tables, number)
    for name, rows in tables.items():
        path = folder / VERSION / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    return folder


def _drive(folder: Path, tables: dict[str, list[dict[str, Any]]], scene: int) -> None:
    start = 1_500_000_000_000_000 + scene * 60_000_000

    def pose(token: str, seconds: float) -> str:
        tables["ego_pose"].append(
            {"token": token, "translation": place(seconds).tolist(), "rotation": quaternion(HEADING)}
        )
        return token

    for key_frame in range(KEY_FRAMES):
        token, seconds = f"s{scene}-{key_frame}", key_frame * 0.5
        tables["sample"].append({"token": token, "scene_token": f"s{scene}", "timestamp": start + round(seconds * 1e6)})
        tables["sample_data"].append(
            {
                "token": f"{token}-lidar",
                "sample_token": token,
                "ego_pose_token": pose(f"{token}-lidar", seconds),
                "calibrated_sensor_token": "lidar-0",
                "timestamp": start + round(seconds * 1e6),
                "is_key_frame": True,
                "filename": f"samples/LIDAR_TOP/{token}.bin",
            }
        )
        for number, (_, ahead, speed, size, points, attribute) in enumerate(OBJECTS):
            tables["sample_annotation"].append(
                {
                    "token": f"{token}-{number}",
                    "sample_token": token,
                    "instance_token": f"s{scene}-{number}",
                    "translation": located(ahead, speed, seconds),
                    "size": list(size),
                    "rotation": quaternion(HEADING + 0.2),
                    "prev": f"s{scene}-{key_frame - 1}-{number}" if key_frame else "",
                    "next": f"s{scene}-{key_frame + 1}-{number}" if key_frame + 1 < KEY_FRAMES else "",
                    "attribute_tokens": [attribute] if attribute else [],
                    "num_lidar_pts": points[0],
                    "num_radar_pts": points[1],
                }
            )
    for number, (category, *_) in enumerate(OBJECTS):
        tables["instance"].append({"token": f"s{scene}-{number}", "category_token": category})
    for name, (_, delay) in CAMERAS.items():
        for shot in range((KEY_FRAMES - 1) * STEP + 1):
            key, nearest = shot % STEP == 0, round(shot / STEP)
            seconds = shot / 12 + delay / 1e6
            token = f"s{scene}-{name}-{shot}"
            path = f"{'samples' if key else 'sweeps'}/{name}/{scene}_{shot}.jpg"
            tables["sample_data"].append(
                {
                    "token": token,
                    "sample_token": f"s{scene}-{nearest}",
                    "ego_pose_token": pose(token, seconds),
                    "calibrated_sensor_token": f"{name}-0",
                    "timestamp": start + round(seconds * 1e6),
                    "is_key_frame": key,
                    "filename": path,
                    "height": SIZE[0],
                    "width": SIZE[1],
                }
            )
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            shade = 40 * (scene + 1) + 3 * shot
            Image.new("RGB", (SIZE[1], SIZE[0]), (shade, 255 - shade, 90)).save(file)
