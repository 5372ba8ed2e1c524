"""`mmzoo detect` on a drawn scene: numbers, pictures, a submission; and calibrations that cannot be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from multimodal_zoo.cli import main
from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.data.camera_rig import read_rig
from multimodal_zoo.data.scenes.generate import Settings
from multimodal_zoo.data.synthetic_scenes import synthetic_scenes

SMALL = [
    "model.processor.view.size=[48,128]",
    "model.lift.grids=[{type: voxel_grid, counts: [20, 20, 2], size: [5.0, 5.0, 3.0], centre: [0, 0, -1]}]",
    *("model.bev_encoder.in_channels=128", "model.head.selection.score_threshold=0.0", "model.head.selection.limit=9"),
]
SETTINGS = Settings(scenes=2, frames=2, width=200, height=112, rate=2)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[SceneInfo, Path]:
    """A drawn key frame with another behind it, and the folder of its pictures."""
    folder = tmp_path_factory.mktemp("scenes") / "drawn"
    frames = synthetic_scenes(str(folder), "train", scenes=2, frames=2, width=200, height=112)
    return frames[1].info, frames[1].root


def calibration(info: SceneInfo) -> dict[str, Any]:
    """What a user writes down of a scene."""
    cameras = {
        name: {
            "image": one.path,
            "size": [112, 200],
            "intrinsic": one.intrinsic.tolist(),
            "sensor2lidar": one.sensor2lidar.tolist(),
        }
        for name, one in info.cameras.items()
    }
    history = [
        {"time": sweep.timestamp / 1e6, "ego2global": sweep.ego2global.tolist(), "images": dict(sweep.paths)}
        for sweep in info.previous
    ]
    return {
        "token": info.token,
        "time": info.timestamp / 1e6,
        "lidar2ego": info.lidar2ego.tolist(),
        "ego2global": info.ego2global.tolist(),
        "cameras": cameras,
        "history": history,
    }


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and all that was printed."""
    try:
        status = main(["detect", "fast_bev_tiny", *words])
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def test_boxes_pictures_and_a_submission(scene, tmp_path, capsys) -> None:
    info, root = scene
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(calibration(info)))
    words = [str(root), str(file), "allow_random=true", f"run.dir={tmp_path / 'out'}", "score=0.0", *SMALL]
    status, printed = run(words, capsys)
    assert status == 0, printed
    found = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert 0 < len(found) <= 9
    assert {"class", "score", "centre", "length_width_height", "yaw", "velocity"} == found[0].keys()
    assert found == sorted(found, key=lambda one: -one["score"])
    submitted = json.loads((tmp_path / "out" / "submission.json").read_text())
    assert list(submitted["results"]) == [info.token]
    assert submitted["meta"]["use_camera"]
    for name in (*info.cameras, "above", "sheet"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert min(picture.size) > 100


def test_a_calibration_says_what_the_records_say(scene, tmp_path) -> None:
    info, root = scene
    file, written = tmp_path / "calibration.json", calibration(info)
    for number, one in enumerate(written["cameras"].values()):  # three ways to tell a place
        pose = np.array(one.pop("sensor2lidar"))
        if number % 3 == 0:
            one["lidar2cam"] = np.linalg.inv(pose).tolist()
        elif number % 3 == 1:
            one["sensor2ego"] = (info.lidar2ego @ pose).tolist()
        else:
            one["sensor2lidar"] = pose.tolist()
    file.write_text(json.dumps(written))
    found = read_rig(file, root)
    assert found.token == info.token
    for name, camera in info.cameras.items():
        assert_close(torch.tensor(found.cameras[name].sensor2lidar), torch.tensor(camera.sensor2lidar))
    assert [dict(one.paths) for one in found.previous] == [dict(one.paths) for one in info.previous]


def test_pictures_are_found_by_the_cameras_names(scene, tmp_path) -> None:
    info, root = scene
    written = calibration(info)
    for name, one in written["cameras"].items():
        (tmp_path / f"{name}.jpg").write_bytes((root / one.pop("image")).read_bytes())
    written.pop("history")
    (tmp_path / "calibration.json").write_text(json.dumps(written))
    assert read_rig(tmp_path / "calibration.json").cameras["CAM_BACK"].path == "CAM_BACK.jpg"


def _broken(written: dict[str, Any], change: str) -> dict[str, Any]:
    front = written["cameras"]["CAM_FRONT"]
    if change == "singular":
        front["intrinsic"] = [[0, 0, 100], [0, 0, 50], [0, 0, 1]]
    elif change == "picture":
        front["image"] = "nothing.jpg"
    elif change == "no place":
        front.pop("sensor2lidar")
    elif change == "shape":
        front["sensor2lidar"] = front["sensor2lidar"][:3]
    elif change == "transposed":  # shifts in the last row, as some libraries write them
        front["sensor2lidar"] = np.array(front["sensor2lidar"]).T.tolist()
    elif change == "no inverse":
        front["lidar2cam"] = np.diag([1.0, 1.0, 0.0, 1.0]).tolist()
        front.pop("sensor2lidar")
    elif change == "inverted":
        for one in written["cameras"].values():
            one["sensor2lidar"] = np.linalg.inv(np.array(one["sensor2lidar"])).tolist()
    elif change == "global":
        for one in written["cameras"].values():
            pose = np.array(written["ego2global"]) @ np.array(written["lidar2ego"]) @ np.array(one["sensor2lidar"])
            one["sensor2lidar"] = pose.tolist()
    elif change == "size":
        front["size"] = [900, 1600]
    elif change == "history":
        written.pop("ego2global")
    return written


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("singular", ["CAM_FRONT"]),
        ("picture", ["CAM_FRONT", "nothing.jpg"]),
        ("no place", ["CAM_FRONT", "sensor2lidar, lidar2cam, sensor2ego"]),
        ("shape", ["CAM_FRONT.sensor2lidar", "(3, 4)"]),
        ("transposed", ["CAM_FRONT.sensor2lidar", "is no pose"]),
        ("no inverse", ["CAM_FRONT.lidar2cam", "is no pose"]),
        ("inverted", ["camera"]),
        ("global", ["camera"]),
        ("size", ["CAM_FRONT", "900"]),
        ("history", ["ego2global"]),
    ],
)
def test_what_cannot_be_right_is_said(scene, tmp_path, capsys, change, words) -> None:
    info, root = scene
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(_broken(calibration(info), change)))
    given = [str(root), str(file), "allow_random=true", f"run.dir={tmp_path / 'out'}", *SMALL]
    status, printed = run(given, capsys)
    assert status == 1
    for word in words:
        assert word.lower() in printed.lower()
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_calibration(tmp_path, capsys) -> None:
    status, printed = run([str(tmp_path), str(tmp_path / "none.json"), "allow_random=true"], capsys)
    assert status == 1
    assert "no such file" in printed
    (tmp_path / "text.json").write_text("{")
    status, printed = run([str(tmp_path), str(tmp_path / "text.json"), "allow_random=true"], capsys)
    assert status == 1
    assert "not JSON" in printed
    status, printed = run([str(tmp_path), "one.json", "two.json"], capsys)
    assert status == 1
    assert "one word too many" in printed


def test_places_in_the_cars_frame_need_the_lidars_place(scene, tmp_path) -> None:
    info, root = scene
    file = tmp_path / "calibration.json"
    written = calibration(info)
    file.write_text(json.dumps({key: one for key, one in written.items() if key != "lidar2ego"}))
    with pytest.raises(ValueError, match="`history` needs `lidar2ego`, which is not there"):
        read_rig(file, root)
    back = written["cameras"]["CAM_BACK"]
    back["sensor2ego"] = (info.lidar2ego @ np.array(back.pop("sensor2lidar"))).tolist()
    file.write_text(json.dumps({key: one for key, one in written.items() if key not in ("lidar2ego", "history")}))
    with pytest.raises(ValueError, match=r"`cameras\.CAM_BACK\.sensor2ego` needs `lidar2ego`"):
        read_rig(file, root)
