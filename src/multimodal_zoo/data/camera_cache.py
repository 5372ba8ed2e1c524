"""Key frames in one file of JSON lines, compressed: made once from tables, read in seconds, and no pickle.

The first line says what the file is; then come other times, each once, and key frames, which name them by number.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from multimodal_zoo.data.camera_infos import CameraInfo, SceneInfo, SceneObjects, SceneTruth, Sweep
from multimodal_zoo.files import atomic_file, parsed, reading

FORMAT = "multimodal_zoo camera infos"
#: Changes whenever a line's fields do.
SCHEMA = 1
#: Characters that a line may have: a small file may unpack to more than memory holds.
LONGEST = 1 << 26


class StaleCacheError(ValueError):
    """The file was made with other settings, from other tables, or by another version of the library."""


def write_infos(path: Path, infos: Sequence[SceneInfo], settings: Mapping[str, Any]) -> None:
    """Write key frames in one step: a reader sees the whole file or none.

    Args:
        path: ends in `.jsonl.gz`.
        infos: the key frames.
        settings: what they were made from, plain values; a reader may ask for the same.

    Raises:
        ValueError: infinite numbers, or poses and intrinsics of NaN, with the key frame. NaN in boxes is kept: who
            learns or judges them refuses it with its row.
        OSError: a full disk or an unwritable folder.
    """
    numbers: dict[int, int] = {}
    sweeps: list[Sweep] = []
    for info in infos:
        for sweep in (*info.previous, *info.following):
            if id(sweep) not in numbers:
                numbers[id(sweep)] = len(sweeps)
                sweeps.append(sweep)
    head = {"format": FORMAT, "schema": SCHEMA, "settings": dict(settings)}
    with atomic_file(path) as temporary, gzip.open(temporary, "wt", encoding="utf-8", compresslevel=5) as file:
        counts = {"sweeps": len(sweeps), "samples": len(infos)}
        for line in ({**head, **counts}, *map(_sweep_line, sweeps), *(_info_line(info, numbers) for info in infos)):
            try:
                file.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")
            except ValueError as error:
                raise ValueError(f"{line.get('token', 'an earlier or later time')}: poses and boxes: {error}") from None


def read_infos(path: Path, settings: Mapping[str, Any] | None = None) -> list[SceneInfo]:
    """The key frames of a file.

    Args:
        path: as `write_infos` wrote it.
        settings: what it must have been made from; None takes any.

    Raises:
        StaleCacheError: made with other settings, or by another version of the library.
        ValueError: the file is damaged, or is something else.
    """
    way_out = "delete it, and it is made anew from the tables"
    with reading(path, "file of key frames", way_out, passing=(StaleCacheError,)):
        return _read(path, settings)


def _read(path: Path, settings: Mapping[str, Any] | None) -> list[SceneInfo]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = (parsed(line) for line in iter(lambda: file.readline(LONGEST), ""))
        head = next(lines, None)
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise ValueError(f"its first line does not say {FORMAT!r}")
        if head["schema"] != SCHEMA:
            raise StaleCacheError(f"{path} has schema {head['schema']}; this version reads {SCHEMA}: delete it")
        if settings is not None and head["settings"] != json.loads(json.dumps(dict(settings))):
            raise StaleCacheError(f"{path} was made from {head['settings']}, not from {dict(settings)}: delete it")
        sweeps = [_sweep(line) for line in _some(lines, head["sweeps"])]
        return [_info(line, sweeps) for line in _some(lines, head["samples"])]


def _some(lines: Iterator[Any], count: int) -> Iterator[Any]:
    for number in range(count):
        line = next(lines, None)
        if line is None:
            raise ValueError(f"it ends after {number} of {count} records")
        yield line


def _plain(rows: np.ndarray) -> list[list[float | None]]:
    """Lists of rows, None for NaN."""
    return [[None if math.isnan(value) else value for value in row] for row in rows.tolist()]


def _array(values: Any, width: int) -> np.ndarray:
    """Rows of `width` numbers, NaN for None."""
    return np.array(values, dtype=np.float64).reshape(len(values), width)


def _sweep_line(sweep: Sweep) -> dict[str, Any]:
    return {"time": sweep.timestamp, "ego2global": sweep.ego2global.tolist(), "paths": dict(sweep.paths)}


def _sweep(line: Mapping[str, Any]) -> Sweep:
    paths = {intern(name): path for name, path in line["paths"].items()}
    return Sweep(line["time"], _array(line["ego2global"], 4), paths)


def _names(line: Sequence[str]) -> tuple[str, ...]:
    """Names that many rows share, each once in memory: a fifth of what a data set takes."""
    return tuple(map(intern, line))


def _info_line(info: SceneInfo, numbers: Mapping[int, int]) -> dict[str, Any]:
    return {
        "token": info.token,
        "scene": info.scene,
        "time": info.timestamp,
        "lidar2ego": info.lidar2ego.tolist(),
        "ego2global": info.ego2global.tolist(),
        "velocity": info.ego_velocity.tolist(),
        "cameras": {
            name: {
                "path": one.path,
                "intrinsic": one.intrinsic.tolist(),
                "sensor2lidar": one.sensor2lidar.tolist(),
                "size": None if one.size is None else list(one.size),
            }
            for name, one in info.cameras.items()
        },
        "previous": [numbers[id(sweep)] for sweep in info.previous],
        "following": [numbers[id(sweep)] for sweep in info.following],
        "objects": None if info.objects is None else _objects_line(info.objects),
        "truth": None if info.truth is None else _truth_line(info.truth),
    }


def _objects_line(objects: SceneObjects) -> dict[str, Any]:
    return {
        "boxes": _plain(objects.boxes),
        "names": list(objects.names),
        "lidar": objects.num_lidar_pts.tolist(),
        "radar": objects.num_radar_pts.tolist(),
        "valid": objects.valid.tolist(),
    }


def _truth_line(truth: SceneTruth) -> dict[str, Any]:
    return {
        "names": list(truth.names),
        "translations": _plain(truth.translations),
        "sizes": _plain(truth.sizes),
        "rotations": _plain(truth.rotations),
        "velocities": _plain(truth.velocities),
        "attributes": list(truth.attributes),
        "lidar": truth.num_lidar_pts.tolist(),
        "radar": truth.num_radar_pts.tolist(),
        "racks": _plain(truth.racks),
    }


def _info(line: Mapping[str, Any], sweeps: Sequence[Sweep]) -> SceneInfo:
    lidar2ego, ego2global = _array(line["lidar2ego"], 4), _array(line["ego2global"], 4)
    return SceneInfo(
        token=line["token"],
        scene=intern(line["scene"]),
        timestamp=line["time"],
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        cameras={
            intern(name): CameraInfo(
                one["path"],
                _array(one["intrinsic"], 3),
                _array(one["sensor2lidar"], 4),
                None if one["size"] is None else (one["size"][0], one["size"][1]),
            )
            for name, one in line["cameras"].items()
        },
        previous=[sweeps[number] for number in line["previous"]],
        following=[sweeps[number] for number in line["following"]],
        ego_velocity=np.array(line["velocity"], dtype=np.float64),
        objects=None if line["objects"] is None else _objects(line["objects"]),
        truth=None if line["truth"] is None else _truth(line["truth"], line["token"], ego2global, lidar2ego),
    )


def _objects(line: Mapping[str, Any]) -> SceneObjects:
    return SceneObjects(
        boxes=_array(line["boxes"], 9),
        names=_names(line["names"]),
        num_lidar_pts=np.array(line["lidar"], dtype=np.int64),
        num_radar_pts=np.array(line["radar"], dtype=np.int64),
        valid=np.array(line["valid"], dtype=bool),
    )


def _truth(line: Mapping[str, Any], token: str, ego2global: np.ndarray, lidar2ego: np.ndarray) -> SceneTruth:
    return SceneTruth(
        token=token,
        ego2global=ego2global,
        lidar2ego=lidar2ego,
        names=_names(line["names"]),
        translations=_array(line["translations"], 3),
        sizes=_array(line["sizes"], 3),
        rotations=_array(line["rotations"], 4),
        velocities=_array(line["velocities"], 2),
        attributes=_names(line["attributes"]),
        num_lidar_pts=np.array(line["lidar"], dtype=np.int64),
        num_radar_pts=np.array(line["radar"], dtype=np.int64),
        racks=_array(line["racks"], 10),
    )
