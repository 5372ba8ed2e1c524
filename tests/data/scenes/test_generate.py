"""Synthetic data sets on the disk: tables that hold together, files, calibration, interruption."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multimodal_zoo.bev.geometry import moved, pose, rotation_of
from multimodal_zoo.data.scenes import generate as module
from multimodal_zoo.data.scenes.generate import SHEET, Settings, generate
from multimodal_zoo.data.scenes.recording import Recording
from multimodal_zoo.data.scenes.rig import CAMERAS
from multimodal_zoo.data.scenes.settings import VERSION
from multimodal_zoo.data.scenes.tables import TABLES, visibility_token
from multimodal_zoo.data.scenes.view import View, textures_of

SETTINGS = Settings(scenes=2, frames=3, width=200, height=112, seed=5, rate=4)
CHANNELS = [camera.channel for camera in CAMERAS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return generate(tmp_path_factory.mktemp("synthetic") / "set", SETTINGS)


@pytest.fixture(scope="module")
def tables(folder) -> dict[str, list[dict]]:
    return {name: json.loads((folder / VERSION / f"{name}.json").read_text()) for name in TABLES}


@pytest.fixture(scope="module")
def rows(tables) -> dict[str, dict[str, dict]]:
    found = {name: {row["token"]: row for row in rows} for name, rows in tables.items()}
    assert all(len(found[name]) == len(tables[name]) for name in TABLES)
    return found


def test_each_token_is_found(rows) -> None:
    targets = {
        "first_sample_token": "sample",
        "last_sample_token": "sample",
        "first_annotation_token": "sample_annotation",
        "last_annotation_token": "sample_annotation",
    }
    for name in TABLES:
        assert rows[name]
        for row in rows[name].values():
            for key, value in row.items():
                table = targets.get(key, key.removesuffix("_token"))
                if key.endswith("_token"):
                    assert value in rows[table], (name, key)
            for key in ("prev", "next"):
                other = {"prev": "next", "next": "prev"}[key]
                assert not row.get(key) or rows[name][row[key]][other] == row["token"]
            for key, table in (("attribute_tokens", "attribute"), ("log_tokens", "log")):
                assert all(one in rows[table] for one in row.get(key, ()))


def test_samples_and_sweeps_follow_each_other(rows) -> None:
    for scene in rows["scene"].values():
        sample, stamps = rows["sample"][scene["first_sample_token"]], []
        while True:
            stamps.append(sample["timestamp"])
            if not sample["next"]:
                break
            sample = rows["sample"][sample["next"]]
        assert sample["token"] == scene["last_sample_token"]
        assert len(stamps) == scene["nbr_samples"] == 3
        assert np.diff(stamps).tolist() == [500_000, 500_000]
    for channel in CHANNELS:
        for last in [one for one in _of(rows, channel) if not one["next"]]:
            chain = [last]
            while chain[-1]["prev"]:
                chain.append(rows["sample_data"][chain[-1]["prev"]])
            assert len(chain) == 6 + 2 * 2 + 1
            assert [one["is_key_frame"] for one in chain] == [True, False] * 2 + [True] + [False] * 6
            # 6 sweeps are 1.5 s; each sample_data belongs to the key frame at its time or behind it.
            assert np.abs(-np.diff([one["timestamp"] for one in chain]) - 250_000).max() <= 1
            for one in chain:
                lead = rows["sample"][one["sample_token"]]["timestamp"] - one["timestamp"]
                assert -20_000 < lead < (20_000 if one["is_key_frame"] else 1_520_000)


def _of(rows, channel: str) -> list[dict]:
    return [one for one in rows["sample_data"].values() if f"/{channel}/" in one["filename"]]


def test_all_files_are_there_and_none_besides(folder, rows) -> None:
    named = {one["filename"] for one in rows["sample_data"].values()}
    there = {str(path.relative_to(folder)) for kind in ("samples", "sweeps") for path in (folder / kind).rglob("*.*")}
    assert named == there
    assert len(named) == 2 * (6 * 11 + 3)
    for one in list(rows["sample_data"].values())[::7]:
        path = folder / one["filename"]
        assert path.parts[-3] == ("samples" if one["is_key_frame"] else "sweeps")
        if one["fileformat"] == "jpg":
            with Image.open(path) as picture:
                assert picture.size == (one["width"], one["height"]) == (200, 112)
                assert np.asarray(picture).std() > 20
        else:
            assert path.name.endswith(".pcd.bin")
            assert len(np.fromfile(path, np.float32)) % 5 == 0
    with Image.open(folder / SHEET) as sheet:
        assert sheet.size == (600, 224)
    for one in rows["map"].values():
        assert (folder / one["filename"]).is_file()
    assert json.loads((folder / VERSION / "splits.json").read_text()) == {
        "train": ["scene-0000"],
        "val": ["scene-0001"],
    }


def _pose(row: dict) -> torch.Tensor:
    return pose(rotation_of(torch.tensor(row["rotation"])), torch.tensor(row["translation"], dtype=torch.float64))


def test_boxes_project_onto_what_is_seen_by_tables_alone(rows) -> None:
    """Standing objects that nothing hides: their middle, through the tables' poses, on the picture of numbers."""
    recording = Recording.drawn(Path(), 1, SETTINGS)
    scene = next(one for one in rows["scene"].values() if one["name"] == "scene-0001")
    parts = recording.drive, recording.backdrop_paint, textures_of(recording.drive), 200, 112
    instances = {row["instance_token"]: i for row in rows["sample_annotation"].values() for i in [0]}
    checked = 0
    for camera in CAMERAS:
        view = View(camera, *parts)
        for data in _of(rows, camera.channel):
            sample = rows["sample"][data["sample_token"]]
            if not data["is_key_frame"] or sample["scene_token"] != scene["token"]:
                continue
            time = (sample["timestamp"] - recording.stamp(0)) / 1e6 + camera.delay
            shot = view.shot(time)
            calibration = rows["calibrated_sensor"][data["calibrated_sensor_token"]]
            camera_to_global = _pose(rows["ego_pose"][data["ego_pose_token"]]) @ _pose(calibration)
            intrinsic = torch.tensor(calibration["camera_intrinsic"], dtype=torch.float64)
            for row in rows["sample_annotation"].values():
                if row["sample_token"] != sample["token"] or row["instance_token"] not in instances:
                    continue
                number = _number(recording, row, sample)
                actor = recording.drive.actors[number]
                if actor.speed or actor.drift or shot.covered[number] < 20:
                    continue
                if shot.visible[number] < shot.covered[number]:
                    continue
                centre = torch.tensor([row["translation"]], dtype=torch.float64)
                ((u, v, depth),) = (moved(torch.linalg.inv(camera_to_global), centre) @ intrinsic.T).tolist()
                column, line = round(u / depth), round(v / depth)
                if depth > 1 and 0 <= column < 200 and 0 <= line < 112:
                    assert shot.ids[line, column] == number + 1
                    checked += 1
    assert checked >= 5


def _number(recording: Recording, row: dict, sample: dict) -> int:
    boxes = recording.drive.boxes((sample["timestamp"] - recording.stamp(0)) / 1e6)
    distance = np.linalg.norm(boxes.centres - np.array(row["translation"]), axis=1)
    assert distance.min() < 1e-9
    return int(distance.argmin())


def test_velocities_are_differences_of_annotations(rows) -> None:
    moving = {
        one["token"] for one in rows["attribute"].values() if one["name"] in ("vehicle.moving", "cycle.with_rider")
    }
    standing = {one["token"] for one in rows["attribute"].values() if one["name"] == "vehicle.parked"}
    seen = {"moving": 0, "standing": 0}
    for row in rows["sample_annotation"].values():
        if not row["next"] or not row["attribute_tokens"]:
            continue
        after = rows["sample_annotation"][row["next"]]
        times = [rows["sample"][one["sample_token"]]["timestamp"] for one in (row, after)]
        assert times[1] - times[0] == 500_000
        step = np.array(after["translation"]) - np.array(row["translation"])
        if row["attribute_tokens"][0] in moving:
            heading = rotation_of(torch.tensor(row["rotation"]))[:, 0].numpy()
            assert step @ heading > 0.95 * np.linalg.norm(step) > 0.4
            seen["moving"] += 1
        elif row["attribute_tokens"][0] in standing:
            assert np.abs(step).max() < 1e-6
            seen["standing"] += 1
    assert min(seen.values()) > 3


def test_annotations_say_how_well_an_object_is_seen(rows) -> None:
    visible = [row["visibility_token"] for row in rows["sample_annotation"].values()]
    assert set(visible) == {"1", "2", "3", "4"} or {"1", "4"} <= set(visible)
    points = [row["num_lidar_pts"] for row in rows["sample_annotation"].values()]
    assert 0 in points
    assert max(points) > 50
    assert [visibility_token(a, b) for a, b in ((0, 0), (2, 5), (3, 5), (4, 5), (5, 5))] == ["1", "1", "2", "3", "4"]
    for row in rows["sample_annotation"].values():
        assert row["translation"][2] == pytest.approx(row["size"][2] / 2)
        category = rows["category"][rows["instance"][row["instance_token"]]["category_token"]]["name"]
        if category == "vehicle.car":
            width, length, height = row["size"]
            assert length > width > height > 1.4


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(str(path.relative_to(folder)).encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


def test_one_seed_makes_the_same_bytes(folder, tmp_path) -> None:
    (tmp_path / "again").mkdir()  # an empty folder will do
    assert digest(generate(tmp_path / "again", SETTINGS)) == digest(folder)
    other = Settings(scenes=2, frames=1, width=64, height=36, seed=6, rate=2)
    assert digest(generate(tmp_path / "other", other)) != digest(folder)


@pytest.mark.multiprocess
def test_two_processes_make_the_same_bytes(tmp_path) -> None:
    small = Settings(scenes=3, frames=1, width=64, height=36, seed=6, rate=2)
    assert digest(generate(tmp_path / "two", small, workers=2)) == digest(generate(tmp_path / "one", small))


def test_an_interrupted_call_leaves_nothing(tmp_path, monkeypatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    small = Settings(scenes=2, frames=1, width=64, height=36, rate=2)
    with monkeypatch.context() as patch:
        patch.setattr(module, "shared_tables", stop)
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / "set", small)
    assert not list(tmp_path.iterdir())
    made = generate(tmp_path / "set", small)
    before = (made / SHEET).stat().st_mtime_ns
    assert generate(tmp_path / "set", small) == made
    assert (made / SHEET).stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match=r"other settings .*frames=1"):
        generate(made, SETTINGS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        generate(tmp_path / "mine", small)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["mine", "set"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("scenes", 1, "scenes=1: expected 2"),
        ("frames", 0, "frames=0: expected 1"),
        ("seed", -1, "seed=-1"),
        ("rate", 5, "rate=5: expected a multiple of 2"),
        ("width", 4000, "size=4000x225: expected 32x18 to 1600x900"),
    ],
)
def test_settings_that_are_out_of_range(key, value, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        Settings(**{key: value})


def test_no_worker(tmp_path) -> None:
    with pytest.raises(ValueError, match="workers=0"):
        generate(tmp_path / "set", SETTINGS, workers=0)
