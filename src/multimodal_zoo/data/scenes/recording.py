"""One scene on the disk: its pictures and point clouds, and its rows of the tables."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from multimodal_zoo.data.scenes.backdrop import BackdropPaint
from multimodal_zoo.data.scenes.drive import Boxes, Drive, Pose
from multimodal_zoo.data.scenes.lidar import scan
from multimodal_zoo.data.scenes.rig import CAMERAS, LIDAR, turn
from multimodal_zoo.data.scenes.settings import HISTORY, KEY_RATE, Settings
from multimodal_zoo.data.scenes.tables import (
    Row,
    Tables,
    calibration_rows,
    instance_rows,
    link,
    rotation_row,
    token,
    visibility_token,
)
from multimodal_zoo.data.scenes.view import Shot, View, textures_of

#: Objects farther from the car are not annotated, metres.
ANNOTATED = 60.0
#: Time stamps of the first scene, microseconds; and between the beginnings of two scenes.
EPOCH, APART = 1_600_000_000_000_000, 600_000_000
JPEG_QUALITY = 88


@dataclass
class Recording:
    """A drive that is recorded into a folder.

    Args:
        folder: of the data set.
        number: of the scene, from 0.
        settings: of the data set.
        drive: what happens.
        backdrop_paint: colours behind all objects.

    Attributes:
        tables: rows of this scene.
    """

    folder: Path
    number: int
    settings: Settings
    drive: Drive
    backdrop_paint: BackdropPaint
    tables: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"scene-{self.number:04d}"
        #: Tokens differ between data sets of another seed.
        self.root = f"{self.settings.seed}/{self.name}"
        self.tables = defaultdict(list)
        self._seen = np.zeros((self.settings.frames, len(self.drive.actors), 2), np.int64)

    @classmethod
    def drawn(cls, folder: Path, number: int, settings: Settings) -> Recording:
        """The scene of a number: each has random numbers of its own, so that scenes can be made in any order."""
        random = np.random.default_rng([settings.seed, number])
        drive = Drive.drawn(random, (settings.frames - 1) / KEY_RATE)
        return cls(folder, number, settings, drive, BackdropPaint(random))

    def stamp(self, time: float) -> int:
        """Time stamp in microseconds of a time in seconds."""
        return EPOCH + self.number * APART + round(time * 1e6)

    def record(self) -> Tables:
        """Write all files of the scene, and return its rows."""
        samples = [
            {
                "token": token(self.root, "sample", i),
                "timestamp": self.stamp(i / KEY_RATE),
                "scene_token": token(self.root),
            }
            for i in range(self.settings.frames)
        ]
        link(samples)
        self.tables["sample"] = samples
        self.tables["calibrated_sensor"] = calibration_rows(self.root, self.settings.width, self.settings.height)
        textures = textures_of(self.drive)
        for camera in CAMERAS:
            size = self.settings.width, self.settings.height
            self._film(View(camera, self.drive, self.backdrop_paint, textures, *size))
        self._annotate(self._scans())
        self._close()
        return dict(self.tables)

    def _film(self, view: View) -> None:
        """All pictures of a camera."""
        rate, camera = self.settings.rate, view.camera
        per_key = rate // KEY_RATE
        rows = []
        for step in range(-round(HISTORY * rate), (self.settings.frames - 1) * per_key + 1):
            time = step / rate + camera.delay
            shot = view.shot(time)
            key = step >= 0 and step % per_key == 0
            # A sweep belongs to the sample that follows it.
            sample = max(-(-step // per_key), 0)
            if key:
                self._seen[sample] += np.stack([shot.visible, shot.covered], axis=1)
            rows.append(self._data_row(camera.channel, "jpg", time, sample, key))
            rows[-1].update(height=self.settings.height, width=self.settings.width)
            _save_picture(shot, self.folder / rows[-1]["filename"])
        link(rows)
        self.tables["sample_data"] += rows

    def _scans(self) -> list[np.ndarray]:
        """The LiDAR at key frames; how many points are on each object, for each key frame."""
        counts, rows = [], []
        for i in range(self.settings.frames):
            time = i / KEY_RATE
            points, found = scan(self.drive.boxes(time), self.drive.pose(time))
            counts.append(found)
            rows.append(self._data_row(LIDAR, "pcd", time, i, key=True))
            rows[-1].update(height=0, width=0)
            (self.folder / rows[-1]["filename"]).write_bytes(points.tobytes())
        link(rows)
        self.tables["sample_data"] += rows
        return counts

    def _data_row(self, channel: str, form: str, time: float, sample: int, key: bool) -> Row:
        """The row of a file of a sensor, and the row of the car's pose at that time."""
        stamp = self.stamp(time)
        own = token(self.root, channel, stamp)
        pose = self.drive.pose(time)
        self.tables["ego_pose"].append(
            {
                "token": own,
                "timestamp": stamp,
                "rotation": rotation_row(pose.rotation),
                "translation": pose.translation.tolist(),
            }
        )
        ending = {"jpg": "jpg", "pcd": "pcd.bin"}[form]
        folder = "samples" if key else "sweeps"
        return {
            "token": own,
            "sample_token": token(self.root, "sample", sample),
            "ego_pose_token": own,
            "calibrated_sensor_token": token(self.root, channel),
            "timestamp": stamp,
            "fileformat": form,
            "is_key_frame": key,
            "filename": f"{folder}/{channel}/{self.name}__{channel}__{stamp}.{ending}",
        }

    def _annotate(self, points: list[np.ndarray]) -> None:
        """Boxes of all objects near the car at key frames."""
        found: dict[int, list[Row]] = defaultdict(list)
        for sample in range(self.settings.frames):
            boxes, pose = self.drive.boxes(sample / KEY_RATE), self.drive.pose(sample / KEY_RATE)
            for i in self._near(boxes, pose):
                found[i].append(self._annotation(sample, i, boxes, int(points[sample][i])))
        self.tables["instance"] = instance_rows(found, [one.name for one in self.drive.actors])
        rows = [row for _, of_one in sorted(found.items()) for row in of_one]
        self.tables["sample_annotation"] = rows

    def _near(self, boxes: Boxes, pose: Pose) -> list[int]:
        distance = np.linalg.norm(boxes.centres[:, :2] - pose.translation[:2], axis=1)
        return np.nonzero(distance < ANNOTATED)[0].tolist()

    def _annotation(self, sample: int, i: int, boxes: Boxes, points: int) -> Row:
        length, width, height = boxes.sizes[i].tolist()
        attribute = self.drive.actors[i].attribute()
        visible, covered = self._seen[sample, i].tolist()
        return {
            "token": token(self.root, "annotation", i, sample),
            "sample_token": token(self.root, "sample", sample),
            "instance_token": token(self.root, "instance", i),
            "visibility_token": visibility_token(visible, covered),
            "attribute_tokens": [token("attribute", attribute)] if attribute else [],
            "translation": boxes.centres[i].tolist(),
            "size": [width, length, height],
            "rotation": rotation_row(turn(float(boxes.yaws[i]))),
            "num_lidar_pts": points,
            "num_radar_pts": 0,
        }

    def _close(self) -> None:
        samples = self.tables["sample"]
        log = {
            "token": token(self.root, "log"),
            "logfile": self.name,
            "vehicle": "synthetic",
            "date_captured": "2020-09-13",
            "location": "synthetic",
        }
        self.tables["log"] = [log]
        bend = self.drive.road.curvature
        self.tables["scene"] = [
            {
                "token": token(self.root),
                "log_token": log["token"],
                "nbr_samples": len(samples),
                "first_sample_token": samples[0]["token"],
                "last_sample_token": samples[-1]["token"],
                "name": self.name,
                "description": f"Synthetic, {self.drive.speed:.1f} m/s, curvature {bend:+.4f} per metre",
            }
        ]


def _save_picture(shot: Shot, path: Path) -> None:
    Image.fromarray(shot.colours).save(path, quality=JPEG_QUALITY)
