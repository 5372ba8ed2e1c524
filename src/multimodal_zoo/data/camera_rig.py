"""The calibration of a car's cameras as one JSON file, beside their pictures: what `mmzoo detect` reads.

    {"lidar2ego": [[...]], "ego2global": [[...]], "time": 12.5,
     "cameras": {"CAM_FRONT": {"image": "front.jpg", "size": [900, 1600],
                               "intrinsic": [[...]], "sensor2lidar": [[...]]}},
     "history": [{"time": 12.0, "ego2global": [[...]], "images": {"CAM_FRONT": "front_earlier.jpg"}}]}

Matrices are rows of numbers in metres: `intrinsic` 3 x 3 in pixels, all others 4 x 4. A camera's place is one of
`sensor2lidar`, `lidar2cam` (its inverse) and `sensor2ego`. `lidar2ego` and `ego2global` are needed where there are
earlier pictures, or `sensor2ego`. Everything else may be left out; pictures are then found by the camera's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal_zoo.bev.geometry import check_intrinsic
from multimodal_zoo.data.camera_infos import CameraInfo, SceneInfo, Sweep
from multimodal_zoo.data.pictures import PICTURE_SUFFIXES
from multimodal_zoo.files import parsed, reading


def read_rig(path: Path, images: Path | None = None) -> SceneInfo:
    """The scene that a calibration file describes.

    Args:
        path: of the file.
        images: folder of the pictures; None for the folder of the file.

    Raises:
        FileNotFoundError: no such file or picture, with the camera.
        ValueError: no JSON, or entries that are missing or of other shapes, with their names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"calibration {path}: no such file")
    try:
        given = parsed(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"calibration {path}: not JSON: {error}") from error
    if not isinstance(given, dict) or not isinstance(given.get("cameras"), dict) or not given["cameras"]:
        raise ValueError(f"calibration {path}: expected an object with an entry `cameras` of one camera or more")
    folder = path.parent if images is None else images
    with reading(path, "calibration of cameras", "compare its entries with the example in the docs"):
        lidar2ego = _pose(given.get("lidar2ego", np.eye(4)), f"{path}: lidar2ego")
        cameras = {name: _camera(name, one, folder, lidar2ego, path) for name, one in given["cameras"].items()}
        by_ego = [name for name, one in given["cameras"].items() if "sensor2ego" in one]
        _require(given, ("lidar2ego",) if by_ego else (), f"cameras.{by_ego[0]}.sensor2ego" if by_ego else "", path)
        sweeps = [_sweep(number, one, folder, cameras, path) for number, one in enumerate(given.get("history", []))]
        _require(given, ("lidar2ego", "ego2global") if sweeps else (), "history", path)
        return SceneInfo(
            token=str(given.get("token", path.stem)),
            scene="",
            timestamp=round(1e6 * float(given.get("time", 0.0))),
            lidar2ego=lidar2ego,
            ego2global=_pose(given.get("ego2global", np.eye(4)), f"{path}: ego2global"),
            cameras=cameras,
            previous=sweeps,
            following=[],
            ego_velocity=np.zeros(2),
            objects=None,
            truth=None,
        )


def _require(given: Mapping[str, Any], names: Sequence[str], by: str, path: Path) -> None:
    """Refuse a calibration that lacks what another entry of it is told in."""
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"calibration {path}: `{by}` needs `{missing[0]}`, which is not there")


def _camera(name: str, given: Mapping[str, Any], folder: Path, lidar2ego: np.ndarray, path: Path) -> CameraInfo:
    place = f"{path}: cameras.{name}"
    poses = [key for key in ("sensor2lidar", "lidar2cam", "sensor2ego") if key in given]
    if "intrinsic" not in given or len(poses) != 1:
        raise ValueError(f"calibration {place}: needs `intrinsic` and one of sensor2lidar, lidar2cam, sensor2ego")
    pose = _pose(given[poses[0]], f"{place}.{poses[0]}")
    if poses[0] == "lidar2cam":
        pose = np.linalg.inv(pose)
    elif poses[0] == "sensor2ego":
        pose = np.linalg.inv(lidar2ego) @ pose
    intrinsic = _matrix(given["intrinsic"], (3, 3), f"{place}.intrinsic")
    try:
        check_intrinsic(torch.from_numpy(intrinsic))
    except ValueError as error:
        raise ValueError(f"calibration {place}.intrinsic: {error}") from None
    size = given.get("size")
    if size is not None and (not isinstance(size, list) or len(size) != 2):
        raise ValueError(f"calibration {place}.size: {size}; expected [height, width] in pixels")
    return CameraInfo(
        path=_picture(name, given.get("image"), folder),
        intrinsic=intrinsic,
        sensor2lidar=pose,
        size=None if size is None else (int(size[0]), int(size[1])),
    )


def _sweep(number: int, given: Any, folder: Path, cameras: Mapping[str, CameraInfo], path: Path) -> Sweep:
    place = f"{path}: history[{number}]"
    if not isinstance(given, dict) or {"ego2global", "images"} - given.keys():
        raise ValueError(f"calibration {place}: needs `ego2global` and `images`")
    if strange := sorted(given["images"].keys() - cameras.keys()):
        raise ValueError(f"calibration {place}.images: {strange} are no cameras; there are {sorted(cameras)}")
    paths = {name: _picture(name, one, folder) for name, one in given["images"].items()}
    pose = _pose(given["ego2global"], f"{place}.ego2global")
    return Sweep(timestamp=round(1e6 * float(given.get("time", 0.0))), ego2global=pose, paths=paths)


def _matrix(given: Any, shape: tuple[int, int], place: str) -> np.ndarray:
    try:
        found = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"calibration {place}: not a matrix of numbers") from error
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(f"calibration {place}: shape {found.shape}; expected {shape} of finite numbers")
    return found


def _pose(given: Any, place: str) -> np.ndarray:
    """A pose (4, 4): rotation and shift, which stands in the last column."""
    found = _matrix(given, (4, 4), place)
    if not np.allclose(found[3], [0, 0, 0, 1], atol=1e-6) or abs(np.linalg.det(found[:3, :3])) < 1e-6:
        raise ValueError(f"calibration {place}: {found.tolist()} is no pose; expected rows of [R t], then 0, 0, 0, 1")
    return found


def _picture(name: str, given: Any, folder: Path) -> str:
    if given is not None:
        if not (folder / str(given)).is_file():
            raise FileNotFoundError(f"picture of {name}: {folder / str(given)}: no such file")
        return str(given)
    found = [f"{name}.{ending}" for ending in PICTURE_SUFFIXES if (folder / f"{name}.{ending}").is_file()]
    if len(found) != 1:
        raise FileNotFoundError(
            f"picture of {name}: {len(found)} files {folder / name}.jpg, .png, ...; expected one, or its name as "
            f"cameras.{name}.image in the calibration"
        )
    return found[0]
