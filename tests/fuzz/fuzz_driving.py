"""Doors of driving data: tables of nuScenes, key frames in files, calibrations of cameras."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_data import Make, picture
from fuzz_harness import Door
from fuzz_mutations import damaged_tree

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # its tiny drives
from driving_samples import SCENES, VERSION, write_drives

from multimodal_zoo.data.camera_cache import read_infos, write_infos
from multimodal_zoo.data.camera_reader import camera_info_file, nuscenes_scenes
from multimodal_zoo.data.camera_rig import read_rig


def _drives(table: str) -> Make:
    def make(folder: Path) -> Path:
        write_drives(folder)
        (folder / "splits.json").write_text(json.dumps({"some": list(SCENES)}))
        return folder / (f"{VERSION}/{table}.json" if table != "splits" else "splits.json")

    return make


def scenes(path: Path) -> None:
    """The key frames of the split in a drive's own list."""
    root = path.parent if path.name == "splits.json" else path.parents[1]
    nuscenes_scenes(str(root), VERSION, "some", spacing=3, most=4)


def _key_frames(folder: Path) -> Path:
    write_drives(folder)
    (folder / "splits.json").write_text(json.dumps({"some": list(SCENES)}))
    frames = nuscenes_scenes(str(folder), VERSION, "some", spacing=3, most=4)
    path = folder / "kept.jsonl.gz"
    write_infos(path, frames.infos, {"version": VERSION})
    return path


def _record() -> dict[str, Any]:
    """A record of the layout of mmdetection3d before 1.0."""
    turn, camera = [1.0, 0.0, 0.0, 0.0], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    place = {"lidar2ego_rotation": turn, "lidar2ego_translation": [0.0, 0.0, 1.0]}
    place |= {"ego2global_rotation": turn, "ego2global_translation": [1.0, 2.0, 3.0]}
    sensor = {
        "data_path": "a.jpg", "sensor2lidar_rotation": camera, "sensor2lidar_translation": [0.0, 0.0, 0.0],
        "cam_intrinsic": [[20.0, 0.0, 16.0], [0.0, 20.0, 9.0], [0.0, 0.0, 1.0]], "timestamp": 1,
    }  # fmt: skip
    boxes = {
        "gt_boxes": [[1.0, 2.0, 0.0, 1.8, 4.2, 1.6, 0.1]], "gt_names": ["car"], "gt_velocity": [[0.0, 1.0]],
        "num_lidar_pts": [5], "num_radar_pts": [1], "valid_flag": [True],
    }  # fmt: skip
    return {
        "token": "t",
        "timestamp": 5,
        "cams": {"CAM_FRONT": sensor},
        "sweeps": [],
        "scene_token": "s",
        **place,
        **boxes,
    }


def _infos(suffix: str) -> Make:
    def make(folder: Path) -> Path:
        content = {"infos": [_record()], "metadata": {"version": VERSION}}
        path = folder / f"infos{suffix}"
        path.write_bytes(pickle.dumps(content, 2) if suffix == ".pkl" else json.dumps(content).encode())
        return path

    return make


def _rig(folder: Path) -> Path:
    one = np.eye(4).tolist()
    intrinsic = [[20.0, 0.0, 16.0], [0.0, 20.0, 9.0], [0.0, 0.0, 1.0]]
    camera = {"image": "a.png", "size": [18, 32], "intrinsic": intrinsic, "sensor2lidar": one}
    history = [{"time": 12.0, "ego2global": one, "images": {"CAM_FRONT": "a.png"}}]
    given = {"lidar2ego": one, "ego2global": one, "time": 12.5, "cameras": {"CAM_FRONT": camera}, "history": history}
    (folder / "a.png").write_bytes(picture())
    (folder / "rig.json").write_text(json.dumps(given))
    return folder / "rig.json"


TABLES = ("scene", "sample", "sample_data", "calibrated_sensor", "ego_pose", "sample_annotation", "sensor")
DOORS = (
    *(
        Door(
            f"nuScenes, {table}.json",
            _drives(table),
            scenes,
            damaged_tree,
            share=25,
            names=("v1.0-mini", "this version holds"),
        )
        for table in TABLES
    ),
    Door(
        "nuScenes, splits.json",
        _drives("splits"),
        scenes,
        damaged_tree,
        share=25,
        names=("scene-", "data.train.splits"),
    ),
    Door("key frames, .jsonl.gz", _key_frames, read_infos),
    Door("key frames, JSON", _infos(".json"), lambda path: camera_info_file(str(path), str(path.parent)), damaged_tree),
    Door("key frames, pickle", _infos(".pkl"), lambda path: camera_info_file(str(path), str(path.parent))),
    Door("calibration", _rig, read_rig, damaged_tree, names=("CAM_FRONT", "picture of")),
)
