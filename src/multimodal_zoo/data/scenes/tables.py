"""Rows of the thirteen tables of a nuScenes v1.0 data set.

A token is the digest of what a row stands for, so that the same scenes always have the same tokens. `prev` and `next`
are empty at both ends, as in nuScenes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from multimodal_zoo.bev.geometry import quaternion_of
from multimodal_zoo.data.scenes.rig import CAMERAS, LIDAR, LIDAR_ROTATION, LIDAR_TRANSLATION

Row = dict[str, Any]
Tables = dict[str, list[Row]]

#: All tables, in alphabetical order.
TABLES = (
    "attribute",
    "calibrated_sensor",
    "category",
    "ego_pose",
    "instance",
    "log",
    "map",
    "sample",
    "sample_annotation",
    "sample_data",
    "scene",
    "sensor",
    "visibility",
)
#: Class -> name of its category.
CATEGORIES = {
    "car": "vehicle.car",
    "truck": "vehicle.truck",
    "trailer": "vehicle.trailer",
    "bus": "vehicle.bus.rigid",
    "construction_vehicle": "vehicle.construction",
    "bicycle": "vehicle.bicycle",
    "motorcycle": "vehicle.motorcycle",
    "pedestrian": "human.pedestrian.adult",
    "traffic_cone": "movable_object.trafficcone",
    "barrier": "movable_object.barrier",
}
ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.sitting_lying_down",
    "pedestrian.standing",
    "pedestrian.moving",
)
#: Levels of visibility: the share of its pixels that is seen, up to which an object belongs to each.
LEVELS = {"v0-40": 0.4, "v40-60": 0.6, "v60-80": 0.8, "v80-100": 1.0}


def token(*words: object) -> str:
    """32 hexadecimal digits for what the words name."""
    return hashlib.sha256("/".join(map(str, words)).encode()).hexdigest()[:32]


def rotation_row(rotation: np.ndarray) -> list[float]:
    """A rotation `(3, 3)` as w, x, y, z."""
    return [float(value) for value in quaternion_of(torch.from_numpy(rotation))]


def link(rows: Sequence[Row]) -> None:
    """Fill in `prev` and `next` of rows that follow each other."""
    for i, row in enumerate(rows):
        row["prev"] = rows[i - 1]["token"] if i else ""
        row["next"] = rows[i + 1]["token"] if i + 1 < len(rows) else ""


def visibility_token(visible: int, covered: int) -> str:
    """`"1"` to `"4"`, the token of the level at which an object is seen; the lowest for what no camera covers."""
    share = visible / covered if covered else 0.0
    return str(1 + next(i for i, most in enumerate(LEVELS.values()) if share <= most))


def shared_tables(logs: Sequence[Row], mask: str) -> Tables:
    """The tables that all scenes have in common.

    Args:
        logs: rows of all drives.
        mask: file of the map's picture.
    """
    channels = [(camera.channel, "camera") for camera in CAMERAS] + [(LIDAR, "lidar")]
    levels = [(str(i + 1), level) for i, level in enumerate(LEVELS)]
    return {
        "attribute": [{"token": token("attribute", one), "name": one, "description": ""} for one in ATTRIBUTES],
        "category": [
            {"token": token("category", name), "name": category, "description": f"synthetic: {name}"}
            for name, category in CATEGORIES.items()
        ],
        "log": list(logs),
        "map": [
            {
                "token": token("map"),
                "log_tokens": [log["token"] for log in logs],
                "category": "semantic_prior",
                "filename": mask,
            }
        ],
        "sensor": [{"token": token("sensor", name), "channel": name, "modality": kind} for name, kind in channels],
        "visibility": [
            {"token": number, "level": level, "description": f"share of pixels that are seen: {level[1:]} %"}
            for number, level in levels
        ],
    }


def calibration_rows(scene: str, width: int, height: int) -> list[Row]:
    """Where the sensors sit, for one scene."""
    rows = [
        {
            "token": token(scene, camera.channel),
            "sensor_token": token("sensor", camera.channel),
            "translation": list(camera.translation),
            "rotation": rotation_row(camera.rotation()),
            "camera_intrinsic": camera.intrinsic(width, height).tolist(),
        }
        for camera in CAMERAS
    ]
    lidar = {
        "token": token(scene, LIDAR),
        "sensor_token": token("sensor", LIDAR),
        "translation": list(LIDAR_TRANSLATION),
        "rotation": rotation_row(LIDAR_ROTATION),
        "camera_intrinsic": [],
    }
    return [*rows, lidar]


def instance_rows(annotations: dict[int, list[Row]], names: Sequence[str]) -> list[Row]:
    """The objects of a scene that are annotated at least once; links their annotations.

    Args:
        annotations: number of the object -> its rows in the order of time.
        names: class of each object.
    """
    rows = []
    for number, found in sorted(annotations.items()):
        link(found)
        rows.append(
            {
                "token": found[0]["instance_token"],
                "category_token": token("category", names[number]),
                "nbr_annotations": len(found),
                "first_annotation_token": found[0]["token"],
                "last_annotation_token": found[-1]["token"],
            }
        )
    return rows
