"""From tables of nuScenes to key frames with their cameras, earlier and later pictures, and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from multimodal_zoo.bev.boxes import CLASSES
from multimodal_zoo.bev.geometry import rotation_of
from multimodal_zoo.data.camera_infos import (
    BICYCLE_RACK,
    CAMERA_NAMES,
    CameraInfo,
    SceneInfo,
    SceneObjects,
    SceneTruth,
    Sweep,
)
from multimodal_zoo.data.nuscenes_tables import LIDAR, MICRO, NuScenesTables, Row

#: Category -> class; all others are dropped.
CLASS_OF = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}


@dataclass(frozen=True)
class HistoryLists:
    """Which other times a key frame lists, counted in pictures of the first camera (12 a second in nuScenes).

    Attributes:
        spacing: every how many of them one is listed; published as 3, a quarter of a second.
        most: entries of each list; published as 20.
    """

    spacing: int = 3
    most: int = 20

    def __post_init__(self) -> None:
        if self.spacing < 1 or self.most < 0:
            raise ValueError(f"history lists of spacing {self.spacing} and most {self.most}; expected >= 1 and >= 0")


class InfoBuilder:
    """Makes the key frames of scenes.

    Args:
        tables: of the data set.
        lists: which other times are listed.
    """

    def __init__(self, tables: NuScenesTables, lists: HistoryLists) -> None:
        self.tables, self.lists = tables, lists
        # The official test scenes come with an empty table, or none: that nothing stood there would be another claim.
        self.annotated = tables.has("sample_annotation") and bool(tables.table("sample_annotation"))

    def scene(self, scene: Row) -> list[SceneInfo]:
        """Key frames of a scene, a row of that table, in order of time.

        Raises:
            ValueError: tables that do not fit together, or rows that lack something, with the scene.
        """
        try:
            return self._scene(scene)
        except (KeyError, TypeError, IndexError) as error:
            what = f"scene {scene.get('name')}: {type(error).__name__}: {error}"
            folder = self.tables.folder / self.tables.version
            raise ValueError(f"the tables in {folder} are damaged: {what}") from error

    def _scene(self, scene: Row) -> list[SceneInfo]:
        samples, recordings = self.tables.scene_samples.get(scene["token"], []), self.tables.recordings[scene["token"]]
        if LIDAR not in recordings:
            raise ValueError(f"scene {scene['name']} has no recording of {LIDAR}, whose key frames give the time")
        key_frames: dict[str, dict[str, Row]] = {}
        for channel, recording in recordings.items():
            for row in recording.rows:
                if row["is_key_frame"]:
                    key_frames.setdefault(row["sample_token"], {})[channel] = row
        rows = [key_frames.get(sample["token"], {}) for sample in samples]
        for sample, row in zip(samples, rows, strict=True):
            if LIDAR not in row:
                raise ValueError(f"sample {sample['token']} of scene {scene['name']} has no key frame of {LIDAR}")
        poses = [self.tables.pose("ego_pose", row[LIDAR]["ego_pose_token"]) for row in rows]
        sweeps = Sweeps(self.tables, scene["token"])
        found = []
        for number, (sample, row) in enumerate(zip(samples, rows, strict=True)):
            velocity = _mean_velocity(samples, poses, number)
            found.append(self._info(scene["name"], sample, row, poses[number], velocity, sweeps))
        return found

    def _info(
        self, scene: str, sample: Row, rows: Mapping[str, Row], ego: np.ndarray, velocity: np.ndarray, sweeps: Sweeps
    ) -> SceneInfo:
        lidar = self.tables.pose("calibrated_sensor", rows[LIDAR]["calibrated_sensor_token"])
        to_lidar = np.linalg.inv(ego @ lidar)
        cameras = {name: self._camera(row, to_lidar) for name, row in rows.items() if name != LIDAR}
        order = [name for name in CAMERA_NAMES if name in cameras]
        order += [name for name in cameras if name not in order]
        first = rows[order[0]] if order else None
        earlier, later = sweeps.around(first, self.lists) if first is not None else ([], [])
        objects, truth = None, None
        if self.annotated:
            truth, rows_of = self._truth(sample["token"], ego, lidar)
            objects = _objects(rows_of, truth, to_lidar)
            truth = _judged(truth, self._racks(sample["token"]))
        return SceneInfo(
            token=sample["token"],
            scene=scene,
            timestamp=rows[LIDAR]["timestamp"],
            lidar2ego=lidar,
            ego2global=ego,
            cameras={name: cameras[name] for name in order},
            previous=earlier,
            following=later,
            ego_velocity=(to_lidar[:3, :3] @ velocity)[:2],
            objects=objects,
            truth=truth,
        )

    def _camera(self, row: Row, to_lidar: np.ndarray) -> CameraInfo:
        """The pose holds the car's motion between the picture and the LiDAR's turn."""
        sensor = self.tables.row("calibrated_sensor", row["calibrated_sensor_token"])
        in_ego = self.tables.pose("calibrated_sensor", row["calibrated_sensor_token"])
        pose = to_lidar @ self.tables.pose("ego_pose", row["ego_pose_token"]) @ in_ego
        size = (row["height"], row["width"]) if row.get("height") and row.get("width") else None
        return CameraInfo(row["filename"], np.array(sensor["camera_intrinsic"], dtype=np.float64), pose, size)

    def _truth(self, token: str, ego: np.ndarray, lidar: np.ndarray) -> tuple[SceneTruth, list[Row]]:
        """Everything annotated in the global frame, under its class or, where it has none, its full category."""
        rows = self.tables.annotations.get(token, [])
        names = [self.tables.category(row) for row in rows]
        attributes = [
            self.tables.row("attribute", row["attribute_tokens"][0])["name"] if row["attribute_tokens"] else ""
            for row in rows
        ]
        truth = SceneTruth(
            token=token,
            ego2global=ego,
            lidar2ego=lidar,
            names=tuple(CLASS_OF.get(name, name) for name in names),
            translations=_stacked([row["translation"] for row in rows], 3),
            sizes=_stacked([row["size"] for row in rows], 3),
            rotations=_stacked([row["rotation"] for row in rows], 4),
            velocities=_stacked([self.tables.velocity(row) for row in rows], 3),
            attributes=tuple(attributes),
            num_lidar_pts=np.array([row["num_lidar_pts"] for row in rows], dtype=np.int64),
            num_radar_pts=np.array([row["num_radar_pts"] for row in rows], dtype=np.int64),
        )
        return truth, rows

    def _racks(self, token: str) -> np.ndarray:
        rows = self.tables.annotations.get(token, [])
        racks = [row for row in rows if self.tables.category(row) == BICYCLE_RACK]
        return _stacked([[*row["translation"], *row["size"], *row["rotation"]] for row in racks], 10)


class Sweeps:
    """Pictures of other times of one scene, each made once.

    Args:
        tables: of the data set.
        scene: its token.
    """

    def __init__(self, tables: NuScenesTables, scene: str) -> None:
        self.tables = tables
        recordings = tables.recordings[scene]
        self.cameras = {name: recording for name, recording in recordings.items() if name != LIDAR}
        self.places = {
            name: {row["token"]: number for number, row in enumerate(recording.rows)}
            for name, recording in self.cameras.items()
        }
        self._made: dict[str, Sweep] = {}

    def around(self, key_frame: Row, lists: HistoryLists) -> tuple[list[Sweep], list[Sweep]]:
        """Earlier and later times of a key frame, the nearest first.

        Args:
            key_frame: picture of the first camera, a row of `sample_data`.
            lists: which are listed.
        """
        channel = self.tables.channel(key_frame)
        rows, place = self.cameras[channel].rows, self.places[channel][key_frame["token"]]
        reach = range(lists.spacing, lists.spacing * lists.most + 1, lists.spacing)
        earlier = [self._sweep(rows[place - steps]) for steps in reach if place - steps >= 0]
        later = [self._sweep(rows[place + steps]) for steps in reach if place + steps < len(rows)]
        return earlier, later

    def _sweep(self, row: Row) -> Sweep:
        if row["token"] not in self._made:
            time = row["timestamp"]
            paths = {name: one.nearest(time)["filename"] for name, one in self.cameras.items()}
            self._made[row["token"]] = Sweep(time, self.tables.pose("ego_pose", row["ego_pose_token"]), paths)
        return self._made[row["token"]]


def _mean_velocity(samples: Sequence[Row], poses: Sequence[np.ndarray], number: int) -> np.ndarray:
    """(3,), the car's own velocity in the global frame along the ground, from the key frames before and after."""
    first, last = max(0, number - 1), min(len(samples) - 1, number + 1)
    seconds = (samples[last]["timestamp"] - samples[first]["timestamp"]) / MICRO
    if seconds <= 0:
        return np.zeros(3)
    moved = (poses[last] - poses[first])[:3, 3] / seconds
    return np.array([moved[0], moved[1], 0.0])


def _objects(rows: Sequence[Row], truth: SceneTruth, to_lidar: np.ndarray) -> SceneObjects:
    turn = to_lidar[:3, :3]
    axes = turn @ rotation_of(torch.from_numpy(truth.rotations)).numpy() if len(rows) else np.zeros((0, 3, 3))
    centres = truth.translations @ turn.T + to_lidar[:3, 3]
    heading = np.arctan2(axes[:, 1, 0], axes[:, 0, 0])  # of the length's axis
    yaw = (-heading - np.pi / 2 + np.pi) % (2 * np.pi) - np.pi
    flat = truth.velocities * np.array([1.0, 1.0, 0.0])  # along the ground
    velocity = (flat @ turn.T)[:, :2]
    bottom = centres[:, 2] - truth.sizes[:, 2] / 2
    boxes = np.concatenate(
        [centres[:, :2], bottom[:, None], truth.sizes, yaw[:, None], velocity], axis=1, dtype=np.float64
    )
    seen = truth.num_lidar_pts + truth.num_radar_pts > 0
    return SceneObjects(boxes, truth.names, truth.num_lidar_pts, truth.num_radar_pts, seen)


def _judged(truth: SceneTruth, racks: np.ndarray) -> SceneTruth:
    kept = np.array([name in CLASSES for name in truth.names], dtype=bool)
    return SceneTruth(
        token=truth.token,
        ego2global=truth.ego2global,
        lidar2ego=truth.lidar2ego,
        names=tuple(name for name in truth.names if name in CLASSES),
        translations=truth.translations[kept],
        sizes=truth.sizes[kept],
        rotations=truth.rotations[kept],
        velocities=truth.velocities[kept, :2],
        attributes=tuple(name for name, one in zip(truth.attributes, kept, strict=True) if one),
        num_lidar_pts=truth.num_lidar_pts[kept],
        num_radar_pts=truth.num_radar_pts[kept],
        racks=racks,
    )


def _stacked(rows: Sequence[Sequence[float] | np.ndarray], width: int) -> np.ndarray:
    return np.array(rows, dtype=np.float64).reshape(len(rows), width)
