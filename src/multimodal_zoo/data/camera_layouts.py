"""Key frames from files of other libraries: the layout of mmdetection3d before 1.0, and that of 1.1.

Old records hold quaternions and `sensor2lidar`, boxes `x y z w l h yaw` around the centre of gravity with the clockwise
yaw of `bev.boxes`. Modern ones hold matrices and `lidar2cam`, and boxes `x y z l w h yaw` with the other yaw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from multimodal_zoo.bev.boxes import CLASSES, from_modern
from multimodal_zoo.data.camera_history import LEGACY_ORDER
from multimodal_zoo.data.camera_infos import CameraInfo, SceneInfo, SceneObjects, Sweep, global_truth, rigid, rigid_of
from multimodal_zoo.files import reading

#: The layouts by the key that only they have.
LAYOUTS = {"cams+lidar2ego_rotation": "old", "cams+lidar2ego": "modern", "images+lidar_points": "modern_list"}


def infos_of(content: Any, name: str) -> list[SceneInfo]:
    """Key frames of a file's content: one record, a list of records, or a mapping that holds them.

    Args:
        content: what JSON or pickle gave.
        name: of the file, for errors.

    Raises:
        ValueError: no record of a known layout, or one that lacks a field.
    """
    with reading(name, "file of key frames"):
        records = content
        labels = list(CLASSES)
        if isinstance(content, Mapping):
            labels = _labels(content)
            records = next((content[key] for key in ("infos", "data_list") if key in content), [content])
        if not isinstance(records, Sequence) or not records:
            raise ValueError(f"{name} holds no key frames; expected a list under 'infos' or 'data_list', or one record")
        return [_one(record, labels, f"{name}, record {number}") for number, record in enumerate(records)]


def _labels(content: Mapping[str, Any]) -> list[str]:
    """Names of the labels of modern records, where the file says them."""
    if "classes" in content:
        return list(content["classes"])
    told = (content.get("metainfo") or {}).get("categories")
    return [name for name, _ in sorted(told.items(), key=lambda pair: pair[1])] if told else list(CLASSES)


def _one(record: Any, labels: Sequence[str], place: str) -> SceneInfo:
    if not isinstance(record, Mapping):
        raise ValueError(f"{place} is {type(record).__name__}; expected a mapping")
    for keys, layout in LAYOUTS.items():
        if all(key in record for key in keys.split("+")):
            try:
                return {"old": old_info, "modern": modern_info, "modern_list": listed_info}[layout](record, labels)
            except Exception as error:  # damaged numbers may raise anything, a singular matrix a ValueError
                raise ValueError(f"{place} ({layout} layout): {type(error).__name__}: {error}") from error
    raise ValueError(
        f"{place} is of no known layout: its keys are {sorted(map(str, record))[:12]}; expected `cams` with "
        "`lidar2ego_rotation` (old), `cams` with `lidar2ego`, or `images` with `lidar_points` (modern)"
    )


def _pose(record: Mapping[str, Any], name: str) -> np.ndarray:
    turn, where = np.asarray(record[f"{name}_rotation"], dtype=np.float64), record[f"{name}_translation"]
    return rigid_of(turn.tolist(), where) if turn.shape == (4,) else rigid(turn, where)


def old_info(record: Mapping[str, Any], labels: Sequence[str]) -> SceneInfo:
    """A record of the layout before 1.0, as Fast-BEV's files have it.

    Velocities of files with `velo` (the car's own) are relative to it and are made absolute; others are so already.

    Args:
        record: with `cams`, and boxes unless the scene is one of the official test.
        labels: not used: the names are in the record.
    """
    del labels
    lidar2ego, ego2global = _pose(record, "lidar2ego"), _pose(record, "ego2global")
    cameras = {
        name: CameraInfo(
            str(one["data_path"]),
            np.asarray(one["cam_intrinsic"], dtype=np.float64),
            rigid(np.asarray(one["sensor2lidar_rotation"], dtype=np.float64), one["sensor2lidar_translation"]),
        )
        for name, one in record["cams"].items()
    }
    velocity = np.asarray(record.get("velo", (0.0, 0.0)), dtype=np.float64)[:2]
    objects = _old_objects(record, velocity) if "gt_boxes" in record else None
    token = str(record["token"])
    return SceneInfo(
        token=token,
        scene=str(record.get("scene_name") or record.get("scene_token") or ""),
        timestamp=int(record["timestamp"]),
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        cameras=cameras,
        previous=_old_sweeps(record.get("prev")),
        following=_old_sweeps(record.get("next")),
        ego_velocity=velocity,
        objects=objects,
        truth=None if objects is None else global_truth(token, ego2global, lidar2ego, objects, CLASSES),
    )


def _old_objects(record: Mapping[str, Any], velocity: np.ndarray) -> SceneObjects:
    names = tuple(map(str, record["gt_names"]))
    boxes = np.asarray(record["gt_boxes"], dtype=np.float64).reshape(len(names), 7)
    moving = np.asarray(record["gt_velocity"], dtype=np.float64).reshape(len(names), 2) + velocity  # null becomes NaN
    boxes = np.concatenate([boxes, moving], axis=1)
    boxes[:, 2] -= boxes[:, 5] / 2
    lidar, radar = (np.asarray(record[key], dtype=np.int64) for key in ("num_lidar_pts", "num_radar_pts"))
    valid = np.asarray(record["valid_flag"], dtype=bool) if "valid_flag" in record else lidar + radar > 0
    return SceneObjects(boxes, names, lidar, radar, valid)


def _old_sweeps(entries: Any) -> list[Sweep]:
    """Other times; a single record, as files with one of them have it, is a list of one."""
    if entries is None:
        return []
    entries = [entries] if isinstance(entries, Mapping) else entries
    return [
        Sweep(
            int(one["timestamp"]),
            _pose(one, "ego2global"),
            {name: str(camera["data_path"]) for name, camera in _named(one["cams"])},
        )
        for one in entries
    ]


def _named(cams: Any) -> list[tuple[str, Any]]:
    """Pictures by name of their camera: from the record's own name, else from the published order of such lists."""
    if isinstance(cams, Mapping):
        return list(cams.items())
    return [(str(one.get("type") or LEGACY_ORDER[number]), one) for number, one in enumerate(cams)]


def modern_info(record: Mapping[str, Any], labels: Sequence[str]) -> SceneInfo:
    """A record with matrices: `cams` with `lidar2cam`, `instances` with `center_lidar`, `size_lwh`, `yaw`.

    Args:
        record: with `cams`.
        labels: names of the labels, for instances without a `name`.
    """
    cameras = {
        name: CameraInfo(
            str(one["file"]),
            np.asarray(one["cam_intrinsic"], dtype=np.float64),
            _inverse(one["lidar2cam"]),
            (one["height"], one["width"]) if "height" in one and "width" in one else None,
        )
        for name, one in record["cams"].items()
    }
    rows = record.get("instances")
    boxes = None if rows is None else [[*r["center_lidar"], *r["size_lwh"], r["yaw"]] for r in rows]
    time = round(float(record["timestamp_s"]) * 1e6)
    return _modern(record, labels, cameras, boxes, (record["lidar2ego"], record["ego2global"], time))


def listed_info(record: Mapping[str, Any], labels: Sequence[str]) -> SceneInfo:
    """A record of a 1.1 file as that library writes it: `images`, `lidar_points`, `instances` with `bbox_3d`.

    Args:
        record: one of `data_list`.
        labels: names of the labels.
    """
    cameras = {
        name: CameraInfo(
            _placed(str(one["img_path"]), name),
            np.asarray(one["cam2img"], dtype=np.float64)[:3, :3],
            _inverse(one["lidar2cam"]),
        )
        for name, one in record["images"].items()
    }
    rows = record.get("instances")
    boxes = None if rows is None else [list(r["bbox_3d"]) for r in rows]
    stamp = float(record["timestamp"])
    time = round(stamp * 1e6) if stamp < 1e12 else round(stamp)
    return _modern(record, labels, cameras, boxes, (record["lidar_points"]["lidar2ego"], record["ego2global"], time))


def _modern(
    record: Mapping[str, Any],
    labels: Sequence[str],
    cameras: Mapping[str, CameraInfo],
    boxes: list[list[float]] | None,
    rest: tuple[Any, Any, int],
) -> SceneInfo:
    lidar2ego, ego2global = (np.asarray(one, dtype=np.float64) for one in rest[:2])
    token = str(record["token"])
    objects = None if boxes is None else _modern_objects(record["instances"], boxes, labels)
    return SceneInfo(
        token=token,
        scene=str(record.get("scene_token") or ""),
        timestamp=rest[2],
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        cameras=cameras,
        previous=[],
        following=[],
        ego_velocity=np.zeros(2),
        objects=objects,
        truth=None if objects is None else global_truth(token, ego2global, lidar2ego, objects, CLASSES),
    )


def _modern_objects(rows: Sequence[Mapping[str, Any]], boxes: list[list[float]], labels: Sequence[str]) -> SceneObjects:
    moving = [[np.nan if v is None else v for v in r.get("velocity_lidar", r.get("velocity"))] for r in rows]
    both = np.concatenate(
        [np.array(boxes, dtype=np.float64).reshape(-1, 7), np.array(moving, dtype=np.float64).reshape(-1, 2)], axis=1
    )
    numbers = [int(r.get("label", r.get("bbox_label_3d", -1))) for r in rows]
    named = [labels[number] if number >= 0 else "ignore" for number in numbers]
    names = [str(r.get("name", name)) for r, name in zip(rows, named, strict=True)]
    lidar, radar = (np.array([r[key] for r in rows], dtype=np.int64) for key in ("num_lidar_pts", "num_radar_pts"))
    told = [r.get("valid", r.get("bbox_3d_isvalid")) for r in rows]
    valid = lidar + radar > 0 if any(one is None for one in told) else np.array(told, dtype=bool)
    return SceneObjects(from_modern(torch.from_numpy(both)).numpy(), tuple(names), lidar, radar, valid)


def _placed(path: str, camera: str) -> str:
    """Paths without a folder belong to that of their camera's key frames."""
    return path if "/" in path else f"samples/{camera}/{path}"


def _inverse(matrix: Any) -> np.ndarray:
    return np.linalg.inv(np.asarray(matrix, dtype=np.float64))
