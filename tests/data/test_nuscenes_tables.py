"""Key frames from tables of nuScenes: poses, history, boxes, velocities, splits, damaged files."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from driving_samples import HEADING, HEIGHT, KEY_FRAMES, SPEED, STEP, VERSION, located, place, write_drives
from torch.testing import assert_close

from multimodal_zoo.bev.geometry import pose, rotation_of
from multimodal_zoo.data.camera_infos import SceneInfo, global_truth, rigid_of
from multimodal_zoo.data.camera_reader import KeyFrames, nuscenes_scenes
from multimodal_zoo.data.nuscenes_splits import official, scenes_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drives(tmp_path_factory.mktemp("drives"))


@pytest.fixture(scope="module")
def reader(folder: Path) -> KeyFrames:
    return nuscenes_scenes(str(folder), VERSION, "all")


@pytest.fixture
def second(reader: KeyFrames) -> SceneInfo:
    return reader.infos[1]


def test_poses(second: SceneInfo) -> None:
    """The camera's pose holds the way that the car went between the LiDAR and the picture."""
    assert second.ego2global[:3, 3] == pytest.approx(place(0.5))
    assert second.lidar2ego[:3, 0] == pytest.approx([0, -1, 0])  # to the right of the car
    front, back = second.cameras["CAM_FRONT"].sensor2lidar, second.cameras["CAM_BACK"].sensor2lidar
    assert front[:3, 3] == pytest.approx([0.0, 0.5 + SPEED * 0.002, 1.5 - HEIGHT])
    assert back[:3, 3] == pytest.approx([0.0, -2.5 + SPEED * 0.007, 1.5 - HEIGHT])
    assert front[:3, :3] == pytest.approx(np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]))
    assert list(second.cameras) == ["CAM_FRONT", "CAM_BACK"]
    assert second.cameras["CAM_FRONT"].size == (18, 32)


def test_history(reader: KeyFrames, second: SceneInfo) -> None:
    """Every third picture of the front camera, and of each camera the picture nearest in time."""
    assert [len(info.previous) for info in reader.infos[:KEY_FRAMES]] == [0, 2, 4, 6]
    assert [len(info.following) for info in reader.infos[:KEY_FRAMES]] == [6, 4, 2, 0]
    assert [sweep.paths["CAM_BACK"] for sweep in second.previous] == [
        "sweeps/CAM_BACK/0_3.jpg",
        "samples/CAM_BACK/0_0.jpg",
    ]
    assert second.following[0].ego2global[:3, 3] == pytest.approx(place((STEP + 3) / 12 + 0.002))
    short = nuscenes_scenes(str(reader.root), VERSION, "all", spacing=1, most=4).infos[2]
    assert [sweep.paths["CAM_FRONT"][-6:] for sweep in short.previous] == ["11.jpg", "10.jpg", "_9.jpg", "_8.jpg"]


def test_boxes(second: SceneInfo) -> None:
    """By the car's own frame: the car stands 12 + 1 - 2.5 - 1 m ahead of the LiDAR after half a second."""
    objects = second.objects
    assert objects is not None
    assert objects.names == ("car", "pedestrian", "traffic_cone", "animal", "static_object.bicycle_rack")
    # 13 m on its way, the LiDAR at 2.5 + 1; 3 m left; the bottom half a height below
    assert objects.boxes[0, :3] == pytest.approx([-3.0, 13 - 3.5, 0.8 - HEIGHT - 0.8])
    assert objects.boxes[0, 3:6] == pytest.approx([1.8, 4.2, 1.6])
    # its length points 0.2 to the left of y, counter-clockwise pi / 2 + 0.2 from x
    assert objects.boxes[0, 6] == pytest.approx(-(math.pi / 2 + 0.2) - math.pi / 2 + 2 * math.pi)
    assert objects.boxes[0, 7:] == pytest.approx([0.0, 2.0])
    assert second.ego_velocity == pytest.approx([0.0, SPEED])
    assert objects.valid.tolist() == [True] * 5
    assert objects.num_lidar_pts.tolist() == [9, 0, 3, 4, 5]


def test_truth(second: SceneInfo) -> None:
    """What is judged is what was annotated; made from boxes of the LiDAR frame it is the same."""
    truth, objects = second.truth, second.objects
    assert truth is not None
    assert objects is not None
    assert truth.names == ("car", "pedestrian", "traffic_cone")
    assert truth.translations[0] == pytest.approx(located((12.0, 3.0, 0.8), 2.0, 0.5))
    assert truth.velocities[0] == pytest.approx([2 * math.cos(HEADING), 2 * math.sin(HEADING)])
    assert truth.attributes == ("vehicle.moving", "pedestrian.standing", "")
    assert truth.racks.shape == (1, 10)
    again = global_truth(second.token, second.ego2global, second.lidar2ego, objects, truth.names)
    np.testing.assert_allclose(again.translations, truth.translations, atol=1e-9)
    np.testing.assert_allclose(again.rotations, truth.rotations, atol=1e-9)
    np.testing.assert_allclose(again.velocities, truth.velocities, atol=1e-9)


def test_velocities_that_nobody_knows(folder: Path, tmp_path: Path) -> None:
    """An object seen once has none; neighbours too far away in time give none."""
    tables = tmp_path / VERSION
    tables.mkdir()
    for path in (folder / VERSION).glob("*.json"):
        rows = json.loads(path.read_text())
        if path.name == "sample_annotation.json":
            for row in rows:
                if row["token"] == "s0-1-0":
                    row["prev"] = row["next"] = ""
                if row["sample_token"] == "s1-2":  # nothing was there
                    row["sample_token"] = "s1-3"
                if row["token"] == "s0-0-1":
                    row["next"] = "s0-3-1"  # 1.5 s: still known
        (tables / path.name).write_text(json.dumps(rows))
    infos = nuscenes_scenes(str(tmp_path), VERSION, "all").infos
    assert infos[1].objects is not None
    assert infos[0].objects is not None
    assert np.isnan(infos[1].objects.boxes[0, 7:]).all()
    assert infos[6].objects is not None
    assert infos[6].truth is not None
    assert (len(infos[6].objects), len(infos[6].truth)) == (0, 0)
    assert infos[6].objects.boxes.shape == (0, 9)
    assert np.isfinite(infos[0].objects.boxes[1]).all()


@pytest.mark.parametrize("empty", [False, True])
def test_scenes_without_annotations(folder: Path, tmp_path: Path, empty: bool) -> None:
    """The official test scenes come without these tables, or with tables without rows: nobody annotated them."""
    (tmp_path / VERSION).mkdir()
    for path in (folder / VERSION).glob("*.json"):
        if path.stem not in ("sample_annotation", "instance"):
            (tmp_path / VERSION / path.name).write_bytes(path.read_bytes())
        elif empty:
            (tmp_path / VERSION / path.name).write_text("[]")
    infos = nuscenes_scenes(str(tmp_path), VERSION, "all").infos
    assert all(info.objects is None and info.truth is None for info in infos)


def test_plain_poses() -> None:
    """The same as through tensors, for quaternions of any length."""
    drawn = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for quaternion in drawn:
        found = rigid_of(quaternion.tolist(), [1.0, 2.0, 3.0])
        assert_close(torch.from_numpy(found), pose(rotation_of(quaternion), torch.tensor([1.0, 2.0, 3.0])))
    with pytest.raises(ValueError, match="not all 0"):
        rigid_of([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0])


def test_splits(folder: Path, tmp_path: Path) -> None:
    for split, scene in (("mini_train", "scene-0061"), ("mini_val", "scene-0103")):
        infos = nuscenes_scenes(str(folder), VERSION, split).infos
        assert {info.scene for info in infos} == {scene}
    own = tmp_path / "own.yaml"
    own.write_text("held_out: [scene-0103]\nother: [scene-0001]\n")
    assert len(nuscenes_scenes(str(folder), VERSION, "held_out", str(own))) == KEY_FRAMES
    with pytest.raises(ValueError, match=r"names 1 scenes, .'scene-0001'. and so on, none of which"):
        nuscenes_scenes(str(folder), VERSION, "other", str(own))
    with pytest.raises(ValueError, match=r"data\.train\.split is 'dev'; known: all, mini_train, mini_val, train"):
        nuscenes_scenes(str(folder), VERSION, "dev")
    with pytest.raises(FileNotFoundError, match=r"data\.train\.splits: .*missing.json"):
        nuscenes_scenes(str(folder), VERSION, "train", str(tmp_path / "missing.json"))
    own.write_text("held_out: scene-0103\n")
    with pytest.raises(ValueError, match="expected split -> list of scene names"):
        nuscenes_scenes(str(folder), VERSION, "held_out", str(own))


def test_damaged_tables(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"versions in .*: {VERSION}"):
        nuscenes_scenes(str(folder), "v1.0-trainval", "all")
    (tmp_path / VERSION).mkdir()
    for path in (folder / VERSION).glob("*.json"):
        (tmp_path / VERSION / path.name).write_bytes(path.read_bytes())
    annotations = tmp_path / VERSION / "sample_annotation.json"
    rows = json.loads(annotations.read_text())
    annotations.write_text(json.dumps([{name: one for name, one in row.items() if name != "size"} for row in rows]))
    with pytest.raises(ValueError, match="are damaged: scene scene-0061: KeyError: 'size'"):
        nuscenes_scenes(str(tmp_path), VERSION, "all")
    annotations.write_text(json.dumps(rows))
    broken = tmp_path / VERSION / "ego_pose.json"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"ego_pose\.json is damaged"):
        nuscenes_scenes(str(tmp_path), VERSION, "all")
    broken.write_text("[]")
    with pytest.raises(ValueError, match=r"ego_pose\.json has no row with the token"):
        nuscenes_scenes(str(tmp_path), VERSION, "all")
    broken.unlink()
    with pytest.raises(FileNotFoundError, match=r"ego_pose\.json is missing"):
        nuscenes_scenes(str(tmp_path), VERSION, "all")


def test_the_official_splits_are_known() -> None:
    known = official()
    assert {name: len(scenes) for name, scenes in known.items()} == {
        "mini_train": 8, "mini_val": 2, "train": 700, "val": 150, "test": 150,
    }  # fmt: skip
    full = [name for split in ("train", "val", "test") for name in known[split]]
    assert len(set(full)) == len(full) == 1000
    assert {*known["mini_train"], *known["mini_val"]} <= {*known["train"], *known["val"]}
    assert scenes_of("val", [], None, ["scene-0001", "scene-0003"]) == ["scene-0003"]
