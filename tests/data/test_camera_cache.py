"""Files of key frames: our own, and those of other libraries."""

from __future__ import annotations

import dataclasses
import gzip
import json
import logging
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driving_samples import VERSION, write_drives
from torch.testing import assert_close

from multimodal_zoo.bev.boxes import to_modern
from multimodal_zoo.data import camera_cache
from multimodal_zoo.data.camera_cache import read_infos, write_infos
from multimodal_zoo.data.camera_infos import SceneInfo, SceneObjects, global_truth
from multimodal_zoo.data.camera_reader import camera_info_file, nuscenes_scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drives(tmp_path_factory.mktemp("drives"))


@pytest.fixture(scope="module")
def infos(folder: Path) -> list[SceneInfo]:
    return nuscenes_scenes(str(folder), VERSION, "mini_train").infos


def assert_same(found: Sequence[SceneInfo], expected: Sequence[SceneInfo]) -> None:
    """Every number, name and path."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        _assert_same(one, other)


def _assert_same(one: Any, other: Any) -> None:
    if isinstance(other, np.ndarray):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    elif hasattr(other, "__dataclass_fields__"):
        for name in other.__dataclass_fields__:
            _assert_same(getattr(one, name), getattr(other, name))
    elif isinstance(other, dict):
        assert list(one) == list(other)
        for name in other:
            _assert_same(one[name], other[name])
    elif isinstance(other, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            _assert_same(a, b)
    else:
        assert one == other


def test_cache(folder: Path, infos: list[SceneInfo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second reader reads the file, and nothing but; times are kept once."""
    cache = tmp_path / "kept" / "train.jsonl.gz"
    assert_same(nuscenes_scenes(str(folder), VERSION, "mini_train", cache=str(cache)).infos, infos)
    monkeypatch.setattr("multimodal_zoo.data.camera_reader.InfoBuilder", None)
    found = nuscenes_scenes(str(folder), VERSION, "mini_train", cache=str(cache)).infos
    assert_same(found, infos)
    assert found[2].previous[-1] is found[1].previous[-1]
    assert_same(camera_info_file(str(cache), str(folder)).infos, infos)


def test_nan_in_the_cache(folder: Path, tmp_path: Path) -> None:
    infos = nuscenes_scenes(str(folder), VERSION, "mini_train").infos
    objects, truth = infos[0].objects, infos[0].truth
    assert objects is not None
    assert truth is not None
    objects.boxes[0, 7:], truth.velocities[0] = np.nan, np.nan
    write_infos(tmp_path / "one.jsonl.gz", infos[:1], {})
    assert_same(read_infos(tmp_path / "one.jsonl.gz"), infos[:1])
    text = gzip.decompress((tmp_path / "one.jsonl.gz").read_bytes()).decode()
    assert "NaN" not in text
    truth.translations[0], truth.sizes[0], truth.racks[:] = (
        np.nan,
        np.nan,
        np.nan,
    )  # refused by who judges, with its row
    write_infos(tmp_path / "one.jsonl.gz", infos[:1], {})
    assert_same(read_infos(tmp_path / "one.jsonl.gz"), infos[:1])
    objects.boxes[0, 0] = np.inf
    with pytest.raises(ValueError, match=f"{infos[0].token}: poses and boxes: Out of range"):
        write_infos(tmp_path / "two.jsonl.gz", infos[:1], {})
    assert [one.name for one in tmp_path.iterdir()] == ["one.jsonl.gz"]


def test_shared_names(infos: list[SceneInfo], tmp_path: Path) -> None:
    """A class, an attribute and a camera are one text in memory, however many rows have them."""
    write_infos(tmp_path / "one.jsonl.gz", infos, {})
    first, second = read_infos(tmp_path / "one.jsonl.gz")[:2]
    assert first.truth is not None
    assert second.truth is not None
    assert second.objects is not None
    for one, other in ((first.truth.names, second.objects.names), (first.truth.attributes, second.truth.attributes)):
        assert one[0] is other[0]
    assert next(iter(first.cameras)) is next(iter(second.previous[0].paths))


def test_key_frames_without_objects(folder: Path, infos: list[SceneInfo], tmp_path: Path) -> None:
    """Nothing around the car is not the same as nothing annotated."""
    full = infos[0].objects
    assert full is not None
    nothing = SceneObjects(full.boxes[:0], (), full.num_lidar_pts[:0], full.num_radar_pts[:0], full.valid[:0])
    truth = global_truth("s0-0", infos[0].ego2global, infos[0].lidar2ego, nothing, ["car"])
    empty = dataclasses.replace(infos[0], objects=nothing, truth=truth, previous=[], following=[])
    rows = [empty, dataclasses.replace(empty, objects=None, truth=None)]
    write_infos(tmp_path / "rows.jsonl.gz", rows, {})
    assert_same(read_infos(tmp_path / "rows.jsonl.gz"), rows)
    (tmp_path / "old.json").write_text(json.dumps({"infos": [_old(empty, False)]}))
    (found,) = camera_info_file(str(tmp_path / "old.json"), str(folder)).infos
    assert found.objects is not None
    assert found.truth is not None
    assert (len(found.objects), len(found.truth)) == (0, 0)
    assert found.truth.translations.shape == (0, 3)


def test_stale_cache(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other settings, and a file of another version of the library, are made anew with a word."""
    cache = str(tmp_path / "kept.jsonl.gz")
    nuscenes_scenes(str(folder), VERSION, "mini_train", cache=cache)
    with caplog.at_level(logging.WARNING):
        assert {one.scene for one in nuscenes_scenes(str(folder), VERSION, "mini_val", cache=cache).infos} == {
            "scene-0103"
        }
    assert "it is made anew" in caplog.text
    (tmp_path / VERSION).mkdir()
    for path in (folder / VERSION).glob("*.json"):
        (tmp_path / VERSION / path.name).write_bytes(path.read_bytes())
    annotations = tmp_path / VERSION / "sample_annotation.json"
    before = annotations.read_bytes()
    for size in (1.8, 9.8):  # as many bytes
        annotations.write_bytes(before.replace(b'"size": [1.8', f'"size": [{size}'.encode()))
        objects = nuscenes_scenes(str(tmp_path), VERSION, "mini_val", cache=cache).infos[0].objects
        assert objects is not None
        assert objects.boxes[0, 3] == size
        assert annotations.stat().st_size == len(before)
    nuscenes_scenes(str(folder), VERSION, "mini_train", cache=cache)
    lines = gzip.decompress(Path(cache).read_bytes()).decode().splitlines()
    head = {**json.loads(lines[0]), "schema": camera_cache.SCHEMA + 1}
    Path(cache).write_bytes(gzip.compress("\n".join([json.dumps(head), *lines[1:]]).encode()))
    with pytest.raises(ValueError, match="has schema 2; this version reads 1"):
        read_infos(Path(cache))


def test_a_cache_that_cannot_be_written(
    folder: Path, infos: list[SceneInfo], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in a shared, read-only data set: what was read is used, and it is said."""
    (tmp_path / "file").write_text("")
    cache = str(tmp_path / "file" / "kept.jsonl.gz")
    with caplog.at_level(logging.WARNING):
        assert_same(nuscenes_scenes(str(folder), VERSION, "mini_train", cache=cache).infos, infos)
    assert "were not kept" in caplog.text
    assert "set `cache`" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "lines", "empty"])
def test_damaged_cache(infos: list[SceneInfo], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "kept.jsonl.gz"
    write_infos(path, infos, {})
    content = path.read_bytes()
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content = content[:200] + bytes([content[200] ^ 255]) + content[201:]
    elif damage == "text":
        content = b"no gzip at all"
    elif damage == "lines":
        content = gzip.compress(b"\n".join(gzip.decompress(content).splitlines()[:-1]))
    else:
        content = b""
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"kept\.jsonl\.gz is damaged or no file of key frames .*delete it"):
        read_infos(path)


def _old(info: SceneInfo, arrays: bool) -> dict[str, Any]:
    """A record as published files have it: velocities relative to the car, cameras of other times in a list."""
    objects = info.objects
    assert objects is not None
    boxes = objects.boxes[:, :7].copy()
    boxes[:, 2] += boxes[:, 5] / 2
    order = ["CAM_FRONT", "CAM_BACK"]

    def sweep(one: Any) -> dict[str, Any]:
        cams = [{"type": name, "data_path": one.paths[name]} for name in reversed(order)]
        return {
            "timestamp": one.timestamp,
            "ego2global_rotation": one.ego2global[:3, :3].tolist(),
            "ego2global_translation": one.ego2global[:3, 3].tolist(),
            "cams": cams,
        }

    record = {
        "token": info.token,
        "timestamp": info.timestamp,
        "lidar2ego_rotation": info.lidar2ego[:3, :3],
        "lidar2ego_translation": info.lidar2ego[:3, 3],
        "ego2global_rotation": info.ego2global[:3, :3],
        "ego2global_translation": info.ego2global[:3, 3],
        "cams": {
            name: {
                "data_path": one.path,
                "cam_intrinsic": one.intrinsic,
                "sensor2lidar_rotation": one.sensor2lidar[:3, :3],
                "sensor2lidar_translation": one.sensor2lidar[:3, 3],
            }
            for name, one in info.cameras.items()
        },
        "gt_boxes": boxes,
        "gt_names": np.array(objects.names),
        "gt_velocity": objects.boxes[:, 7:] - info.ego_velocity,
        "num_lidar_pts": objects.num_lidar_pts,
        "num_radar_pts": objects.num_radar_pts,
        "valid_flag": objects.valid,
        "velo": info.ego_velocity,
        "prev": [sweep(one) for one in info.previous] or None,
        "next": [sweep(one) for one in info.following] or None,
    }
    return record if arrays else json.loads(json.dumps(record, default=lambda one: one.tolist()))


def _same_scene(found: SceneInfo, expected: SceneInfo) -> None:
    assert found.objects is not None
    assert found.truth is not None
    assert expected.objects is not None
    assert expected.truth is not None
    np.testing.assert_allclose(found.objects.boxes, expected.objects.boxes, atol=1e-9)
    assert found.objects.names == expected.objects.names
    np.testing.assert_allclose(found.truth.translations, expected.truth.translations, atol=1e-6)
    np.testing.assert_allclose(found.lidar2global, expected.lidar2global, atol=1e-9)
    for name, camera in expected.cameras.items():
        np.testing.assert_allclose(found.cameras[name].sensor2lidar, camera.sensor2lidar, atol=1e-9)
        assert found.cameras[name].path == camera.path


@pytest.mark.parametrize("suffix", ["json", "pkl"])
def test_old_layout(folder: Path, tmp_path: Path, suffix: str) -> None:
    """Cameras of other times go by their own names, whatever their order."""
    infos = nuscenes_scenes(str(folder), VERSION, "mini_val").infos
    path = tmp_path / f"infos.{suffix}"
    if suffix == "pkl":
        path.write_bytes(pickle.dumps({"infos": [_old(one, True) for one in infos], "metadata": {"version": "x"}}))
    else:
        path.write_text(json.dumps({"infos": [_old(one, False) for one in infos]}))
    found = camera_info_file(str(path), str(folder)).infos
    for one, other in zip(found, infos, strict=True):
        _same_scene(one, other)
        assert [dict(sweep.paths) for sweep in one.previous] == [dict(sweep.paths) for sweep in other.previous]
        assert len(one.following) == len(other.following)
        np.testing.assert_allclose(one.ego_velocity, other.ego_velocity)


def test_prefix(folder: Path, infos: list[SceneInfo], tmp_path: Path) -> None:
    """Published paths begin with a folder that is not the user's."""
    path = tmp_path / "infos.json"
    text = json.dumps({"infos": [_old(one, False) for one in infos]})
    path.write_text(re.sub(r'"(samples|sweeps)/', r'"./data/nuscenes/\1/', text))
    found = camera_info_file(str(path), str(folder), "./data/nuscenes/").infos
    for one, other in zip(found, infos, strict=True):
        assert [camera.path for camera in one.cameras.values()] == [camera.path for camera in other.cameras.values()]
        assert [dict(sweep.paths) for sweep in one.following] == [dict(sweep.paths) for sweep in other.following]
    with pytest.raises(
        ValueError, match=r"data\.train\.prefix is './nuscenes/', but a path of sample s0-0 is './data/"
    ):
        camera_info_file(str(path), str(folder), "./nuscenes/")


def test_modern_layouts(folder: Path, tmp_path: Path) -> None:
    infos = nuscenes_scenes(str(folder), VERSION, "mini_val").infos
    own, listed = [], []
    for info in infos:
        assert info.objects is not None
        modern = to_modern(torch.from_numpy(info.objects.boxes)).tolist()
        shared = [
            {"num_lidar_pts": int(n), "num_radar_pts": int(r)}
            for n, r in zip(info.objects.num_lidar_pts, info.objects.num_radar_pts, strict=True)
        ]
        labels = {"car": 0, "pedestrian": 7, "traffic_cone": 8}
        numbers = [labels.get(name, -1) for name in info.objects.names]
        inverse = {name: np.linalg.inv(one.sensor2lidar).tolist() for name, one in info.cameras.items()}
        base = {"token": info.token, "ego2global": info.ego2global.tolist()}
        own.append(
            {
                **base,
                "timestamp_s": info.timestamp / 1e6,
                "lidar2ego": info.lidar2ego.tolist(),
                "cams": {
                    name: {"file": one.path, "cam_intrinsic": one.intrinsic.tolist(), "lidar2cam": inverse[name]}
                    for name, one in info.cameras.items()
                },
                "instances": [
                    {
                        **rest,
                        "name": name,
                        "center_lidar": row[:3],
                        "size_lwh": row[3:6],
                        "yaw": row[6],
                        "velocity_lidar": row[7:],
                    }
                    for row, rest, name in zip(modern, shared, info.objects.names, strict=True)
                ],
            }
        )
        listed.append(
            {
                **base,
                "timestamp": info.timestamp / 1e6,
                "lidar_points": {"lidar2ego": info.lidar2ego.tolist()},
                "images": {
                    name: {
                        "img_path": Path(one.path).name,
                        "cam2img": one.intrinsic.tolist(),
                        "lidar2cam": inverse[name],
                    }
                    for name, one in info.cameras.items()
                },
                "instances": [
                    {**rest, "bbox_label_3d": number, "bbox_3d": row[:7], "velocity": row[7:], "bbox_3d_isvalid": True}
                    for row, rest, number in zip(modern, shared, numbers, strict=True)
                ],
            }
        )
    for content in (own, {"data_list": listed, "metainfo": {}}):
        path = tmp_path / "infos.json"
        path.write_text(json.dumps(content))
        for one, other in zip(camera_info_file(str(path), str(folder)).infos, infos, strict=True):
            assert one.objects is not None
            assert other.objects is not None
            names = [name if name in ("car", "pedestrian", "traffic_cone") else "" for name in other.objects.names]
            assert [name if name in names else "" for name in one.objects.names] == names
            turned = one.objects.boxes - other.objects.boxes
            turned[:, 6] = (turned[:, 6] + np.pi) % (2 * np.pi) - np.pi
            np.testing.assert_allclose(turned, 0, atol=1e-9)
            assert one.timestamp == other.timestamp
            assert one.cameras["CAM_BACK"].path == other.cameras["CAM_BACK"].path
            assert_close(
                torch.from_numpy(one.cameras["CAM_BACK"].sensor2lidar),
                torch.from_numpy(other.cameras["CAM_BACK"].sensor2lidar),
            )


class Evil:
    """What an attacker would put into a pickle."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("1 + 1",)


def test_pickles_call_nothing(tmp_path: Path) -> None:
    path = tmp_path / "infos.pkl"
    path.write_bytes(pickle.dumps({"infos": [Evil()]}))
    with pytest.raises(ValueError, match=r"wants builtins\.eval; only numpy arrays and plain containers are read"):
        camera_info_file(str(path), str(tmp_path))
    path.write_bytes(pickle.dumps({"infos": [Path("x")]}))
    with pytest.raises(ValueError, match="wants pathlib"):
        camera_info_file(str(path), str(tmp_path))
    path.write_bytes(b"\x80\x04 damaged")
    with pytest.raises(ValueError, match="cannot be read as a pickle of arrays"):
        camera_info_file(str(path), str(tmp_path))


def _singular() -> dict[str, Any]:
    """A modern record whose camera stands nowhere."""
    camera = {"file": "a.jpg", "cam_intrinsic": np.eye(3).tolist(), "lidar2cam": np.zeros((4, 4)).tolist()}
    return {"cams": {"CAM_FRONT": camera}, "lidar2ego": np.eye(4).tolist()}


def test_unknown_layouts(tmp_path: Path) -> None:
    path = tmp_path / "infos.json"
    for content, words in (
        ({"infos": []}, "holds no key frames"),
        ({"infos": [{"token": "x"}]}, r"record 0 is of no known layout: its keys are \['token'\]"),
        ({"infos": [3]}, "record 0 is int; expected a mapping"),
        ({"infos": [{"cams": {}, "lidar2ego_rotation": [1, 0, 0, 0]}]}, r"record 0 \(old layout\): KeyError"),
        ({"infos": [_singular()]}, r"record 0 \(modern layout\): LinAlgError: Singular matrix"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=words):
            camera_info_file(str(path), str(tmp_path))
    path.write_text("{")
    with pytest.raises(ValueError, match="is damaged, or neither JSON"):
        camera_info_file(str(path), str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"data\.train\.file: .* does not exist"):
        camera_info_file(str(tmp_path / "none.json"), str(tmp_path))
