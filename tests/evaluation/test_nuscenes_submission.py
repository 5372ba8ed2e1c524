"""Submissions: from the LiDAR frame to the map, attributes, files, and what is wrong with files."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from nuscenes_made_up import drawn, some

from multimodal_zoo.bev.boxes import corners
from multimodal_zoo.bev.geometry import moved, pose, rotation_of
from multimodal_zoo.bev.post_processing import Detections
from multimodal_zoo.data.camera_infos import SceneInfo, SceneTruth, global_truth
from multimodal_zoo.evaluation.nuscenes_boxes import GlobalBoxes, NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_results import read_submission
from multimodal_zoo.evaluation.nuscenes_submission import (
    META,
    global_boxes,
    meta_of,
    scene_boxes,
    submission_of,
    write_submission,
)

RULES = NuScenesProtocol()
TOKENS = ("first", "second", "third")


def rotation(*quaternion: float) -> torch.Tensor:
    return rotation_of(torch.tensor(quaternion, dtype=torch.float64))


LIDAR2EGO = pose(rotation(0.707, -0.006, 0.011, -0.707), torch.tensor([0.94, 0.0, 1.84]))
EGO2GLOBAL = pose(rotation(-0.57, 0.01, -0.02, 0.82), torch.tensor([411.3, 1180.9, 0.0]))


def info(token: str = "first") -> SceneInfo:
    return SceneInfo(
        token=token,
        scene="",
        timestamp=0,
        lidar2ego=LIDAR2EGO.numpy(),
        ego2global=EGO2GLOBAL.numpy(),
        cameras={},
        previous=[],
        following=[],
        ego_velocity=np.zeros(2),
        objects=None,
        truth=None,
    )


def found(count: int = 6) -> Detections:
    torch.manual_seed(3)
    widths = torch.tensor([40, 40, 2, 3, 6, 2, 6, 4, 4.0])
    boxes = torch.rand(count, 9) * widths + torch.tensor([-20, -20, -2, 1, 1, 1, -3, -2, -2.0])
    return Detections(boxes, torch.rand(count), torch.arange(count) % 10)


def test_boxes_of_the_map_have_the_corners_of_those_of_the_lidar() -> None:
    boxes, scores, labels = found()
    ours = global_boxes(boxes, scores, labels, LIDAR2EGO, EGO2GLOBAL, RULES, sample=2)
    expected = moved(EGO2GLOBAL @ LIDAR2EGO, corners(boxes.double()))
    turn = rotation_of(torch.from_numpy(ours.rotation))
    # length along x, width along y: the side of smaller l is the front, that of smaller w the right one
    signs = torch.tensor([[1, -1], [-1, -1], [-1, 1], [1, 1]], dtype=torch.float64) / 2
    size = torch.from_numpy(ours.size)
    for height, first in ((-0.5, 0), (0.5, 4)):
        local = torch.stack(
            [signs[:, 0] * size[:, None, 1], signs[:, 1] * size[:, None, 0], height * size[:, None, 2].expand(-1, 4)],
            dim=-1,
        )
        placed = torch.einsum("nij,nkj->nki", turn, local) + torch.from_numpy(ours.translation)[:, None]
        assert_allclose(placed, expected[:, first : first + 4], atol=1e-9)
    flat = torch.cat((boxes[:, 7:].double(), torch.zeros(6, 1, dtype=torch.float64)), dim=1)
    whole = flat @ (EGO2GLOBAL @ LIDAR2EGO)[:3, :3].T
    assert_allclose(ours.velocity, whole[:, :2], atol=1e-12)
    assert (ours.rotation[:, 0] >= 0).all()
    assert ours.sample.tolist() == [2] * 6
    assert ours.points.tolist() == [-1] * 6


def test_boxes_are_those_of_the_annotations_way() -> None:
    """The same boxes as annotations of the LiDAR frame, brought to the map by the data room."""
    boxes, scores, labels = found()
    ours = global_boxes(boxes, scores, labels, LIDAR2EGO, EGO2GLOBAL, RULES)

    class Objects:
        names = tuple(RULES.classes[one] for one in labels.tolist())
        num_lidar_pts = num_radar_pts = np.ones(6, dtype=np.int64)

        def __len__(self) -> int:
            return 6

    objects: Any = Objects()
    objects.boxes = boxes.double().numpy()
    truth = global_truth("first", EGO2GLOBAL.numpy(), LIDAR2EGO.numpy(), objects, RULES.classes)
    other = GlobalBoxes.of([truth], RULES.classes)
    for name in ("translation", "size", "rotation", "velocity", "label"):
        assert_allclose(getattr(ours, name), getattr(other, name), atol=1e-9)


def test_boxes_out_of_range_are_left_out() -> None:
    boxes = torch.zeros(4, 9)
    boxes[:, 3:6] = 1
    boxes[:, 0] = torch.tensor([50.0, 50.01, 30.0, 30.01])
    labels = torch.tensor([0, 0, 8, 8])
    eye = torch.eye(4)
    kept = global_boxes(boxes, torch.ones(4), labels, eye, eye, RULES)
    assert kept.translation[:, 0].tolist() == [50.0, 30.0]


def test_attributes_follow_class_and_speed() -> None:
    boxes = torch.zeros(20, 9)
    boxes[:, 3:6] = 1
    boxes[10:, 7], boxes[10:, 8] = 0.15, -0.14  # 0.205 m/s
    boxes[:10, 7] = 0.199
    labels = torch.arange(10).repeat(2)
    kept = global_boxes(boxes, torch.ones(20), labels, torch.eye(4), torch.eye(4), RULES)
    names = [RULES.attributes[one] if one >= 0 else "" for one in kept.attribute]
    parked, still = "vehicle.parked", "cycle.without_rider"
    standing = [parked] * 3 + ["vehicle.stopped", parked, still, still, "pedestrian.standing", "", ""]
    assert names[:10] == standing
    assert names[10:] == ["vehicle.moving"] * 5 + ["cycle.with_rider"] * 2 + ["pedestrian.moving", "", ""]
    slow = global_boxes(boxes, torch.ones(20), labels, torch.eye(4), torch.eye(4), RULES, moving=0.21)
    np.testing.assert_array_equal(slow.attribute[10:], kept.attribute[:10])


def test_boxes_without_velocity_have_none() -> None:
    kept = global_boxes(found().boxes[:, :7], found().scores, found().labels, LIDAR2EGO, EGO2GLOBAL, RULES)
    assert np.isnan(kept.velocity).all()
    assert RULES.attributes[kept.attribute[0]] == "vehicle.parked"


@pytest.mark.parametrize("column", [0, 6, 8])
def test_detections_that_are_not_finite_are_refused(column: int) -> None:
    boxes, scores, labels = found()
    boxes[4, column] = math.nan
    with pytest.raises(ValueError, match=r"sample first: detection 4 is not finite: box \[.*nan"):
        scene_boxes(info(), Detections(boxes, scores, labels), RULES.classes, RULES)
    scores[1] = math.inf
    with pytest.raises(ValueError, match=r"detection 1 is not finite.*score inf"):
        scene_boxes(info(), Detections(boxes, scores, labels), RULES.classes, RULES)


def test_labels_are_read_by_their_names() -> None:
    boxes, scores, labels = found()
    names = ("tram", *RULES.classes[::-1])
    kept = scene_boxes(info(), Detections(boxes, scores, labels), names, RULES, 1)
    assert kept.label.tolist() == [9, 8, 7, 6, 5]  # there is no tram in the comparison
    with pytest.raises(ValueError, match="labels reach from"):
        global_boxes(boxes, scores, labels + 9, LIDAR2EGO, EGO2GLOBAL, RULES)


def test_files_give_back_what_they_were_given(tmp_path: Path) -> None:
    boxes, _ = drawn(0, 3, 40, 1)
    boxes = boxes.take(np.random.default_rng(1).permutation(40))
    file = write_submission(tmp_path / "deep" / "submission.json", boxes, TOKENS, RULES, {"use_external": True})
    content = json.loads(file.read_text())
    assert content["meta"] == {**META, "use_external": True}
    assert list(content["results"]) == list(TOKENS)
    first = content["results"]["first"][0]
    assert set(first) == {
        "sample_token", "translation", "size", "rotation", "velocity", "detection_name", "detection_score",
        "attribute_name",
    }  # fmt: skip
    again, meta = read_submission(file, TOKENS, RULES)
    ordered = boxes.take(np.argsort(boxes.sample, kind="stable"))
    for name in ("sample", "translation", "size", "rotation", "velocity", "label", "attribute", "score"):
        np.testing.assert_array_equal(getattr(again, name), getattr(ordered, name))
    assert meta == content["meta"]


def test_empty_samples_are_in_files(tmp_path: Path) -> None:
    file = write_submission(tmp_path / "submission.json", some(1, sample=1), TOKENS, RULES)
    assert {token: len(rows) for token, rows in json.loads(file.read_text())["results"].items()} == {
        "first": 0,
        "second": 1,
        "third": 0,
    }
    nothing = write_submission(tmp_path / "none.json", GlobalBoxes.none(), TOKENS, RULES)
    assert len(read_submission(nothing, TOKENS, RULES)[0]) == 0


def test_the_object_of_a_few_scenes_is_the_content_of_the_file(tmp_path: Path) -> None:
    scenes = [(info("first"), found(6)), (info("second"), found(0))]
    content = submission_of(scenes, RULES.classes)
    boxes = GlobalBoxes.joined(
        [scene_boxes(one, some_found, RULES.classes, RULES, n) for n, (one, some_found) in enumerate(scenes)]
    )
    file = write_submission(tmp_path / "submission.json", boxes, TOKENS[:2], RULES)
    assert json.loads(file.read_text()) == json.loads(json.dumps(content))


def test_too_many_boxes_and_unknown_flags(tmp_path: Path) -> None:
    few = NuScenesProtocol(max_boxes=3)
    with pytest.raises(ValueError, match=r"sample second has 4 boxes; protocol\.max_boxes is 3"):
        write_submission(tmp_path / "submission.json", some(4, sample=1), TOKENS, few)
    file = write_submission(tmp_path / "submission.json", some(4, sample=1), TOKENS, RULES)
    with pytest.raises(ValueError, match="sample second has 4 boxes"):
        read_submission(file, TOKENS, few)
    with pytest.raises(ValueError, match="sample first stands twice among 3"):
        write_submission(tmp_path / "submission.json", some(1), ("first", "second", "first"), RULES)
    for flags in ({"use_sonar": True}, {"use_lidar": 1}):
        with pytest.raises(ValueError, match="meta is"):
            meta_of(flags)


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda whole: whole.pop("meta"), "expected a JSON object with 'meta' and 'results'"),
        (lambda whole: whole.update(results=[]), "expected a JSON object"),
        (lambda whole: whole["results"].pop("second"), "lacks 1 of 3 samples, second first"),
        (lambda whole: whole["results"].update(tenth=[]), "has boxes of unknown 1 of 3 samples, tenth first"),
        (lambda whole: whole["results"].update(first={}), "sample first has no list of boxes"),
        (lambda whole: box(whole).pop("size"), "a box of sample first has no 'size'"),
        (lambda whole: box(whole).update(size=[1, 2]), "sample first cannot be read: size has 2 numbers instead of 3"),
        (lambda whole: box(whole).update(size=[1, 2, "x"]), "sample first cannot be read"),
        (lambda whole: box(whole).update(detection_name="tram"), "unknown name 'tram'; expected one of .*'car'"),
        (lambda whole: box(whole).update(attribute_name="flying"), "unknown name 'flying'.*vehicle.moving"),
        (lambda whole: box(whole).update(detection_score=None), "sample first cannot be read"),
        (lambda whole: box(whole).update(detection_score=math.nan), "sample first, box 0: score is nan"),
        (lambda whole: box(whole).update(translation=[0, math.nan, 0]), "sample first, box 0: translation is"),
        (lambda whole: box(whole).update(size=[0, 1, 1]), "sample first, box 0: size is"),
        (lambda whole: box(whole).update(rotation=[0, 0, 0, 0]), "sample first, box 0: rotation is"),
        (lambda whole: box(whole).update(sample_token="second"), "box 0 of sample first names another sample_token"),
        (lambda whole: box(whole).update(sample_token="tenth"), "box 0 of sample first names another sample_token"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(tmp_path: Path, change: Change, message: str) -> None:
    file = write_submission(tmp_path / "submission.json", some(2), TOKENS, RULES)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_submission(file, TOKENS, RULES)


def box(content: dict[str, Any]) -> dict[str, Any]:
    """The first box of a file."""
    return content["results"]["first"][0]


def test_no_json_and_no_file(tmp_path: Path) -> None:
    file = tmp_path / "submission.json"
    with pytest.raises(FileNotFoundError):
        read_submission(file, TOKENS, RULES)
    file.write_bytes(b'{"meta": {}, "results": {"first": [')
    with pytest.raises(ValueError, match="no JSON file of detections"):
        read_submission(file, TOKENS, RULES)
    write_submission(file, some(2), TOKENS, RULES)
    twice = file.read_text().replace('"second": []', '"first": [], "second": []')
    file.write_text(twice)
    with pytest.raises(ValueError, match="2 boxes are in a sample that stands twice"):
        read_submission(file, TOKENS, RULES)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="no JSON file of detections"):
        read_submission(file, TOKENS, RULES)


def truth(**changed: Any) -> SceneTruth:
    given: dict[str, Any] = {
        "token": "first",
        "ego2global": np.eye(4),
        "lidar2ego": np.eye(4),
        "names": ("car", "animal", "barrier"),
        "translations": np.arange(9.0).reshape(3, 3),
        "sizes": np.ones((3, 3)),
        "rotations": np.tile([1.0, 0, 0, 0], (3, 1)),
        "velocities": np.array([[1, 2], [0, 0], [np.nan, np.nan]]),
        "attributes": ("vehicle.moving", "", ""),
        "num_lidar_pts": np.array([0, 1, 2]),
        "num_radar_pts": np.array([3, 0, 0]),
    }
    return SceneTruth(**given | changed)


def test_annotations_to_boxes() -> None:
    empty = truth(
        names=(), translations=np.zeros((0, 3)), sizes=np.zeros((0, 3)), rotations=np.zeros((0, 4)),
        velocities=np.zeros((0, 2)), attributes=(), num_lidar_pts=np.zeros(0, int), num_radar_pts=np.zeros(0, int),
    )  # fmt: skip
    boxes = GlobalBoxes.of([empty, truth()], RULES.classes)
    assert boxes.sample.tolist() == [1, 1]
    assert boxes.label.tolist() == [0, 9]
    assert boxes.points.tolist() == [3, 2]
    assert boxes.attribute.tolist() == [5, -1]
    assert np.isnan(boxes.velocity[1]).all()
    assert len(GlobalBoxes.of([empty], RULES.classes)) == 0
    with pytest.raises(ValueError, match="sample first: attribute 'flying'"):
        GlobalBoxes.of([truth(attributes=("flying", "", ""))], RULES.classes)
    with pytest.raises(ValueError, match="sample first: object 1: size is"):
        GlobalBoxes.of([truth(sizes=np.array([[1.0, 1, 1], [1, 1, 1], [1, 0, 1]]))], RULES.classes)
