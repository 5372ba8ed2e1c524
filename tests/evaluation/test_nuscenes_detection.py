"""The evaluator of detectors: a detector that knows everything, one that knows nothing, and bad input."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.post_processing import Detections
from multimodal_zoo.data.camera_augment import CameraView
from multimodal_zoo.data.camera_history import CameraHistory
from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.data.camera_processor import CameraProcessor
from multimodal_zoo.data.camera_reader import KeyFrames, nuscenes_scenes
from multimodal_zoo.evaluation.nuscenes_boxes import NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_detection import NuScenesDetection, judged, true_boxes
from multimodal_zoo.evaluation.nuscenes_results import read_submission
from multimodal_zoo.evaluation.report import write_report
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.evaluation.suite import run_suite

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # made-up drives
sys.path.insert(0, str(Path(__file__).parents[1] / "bev"))  # small detectors
from driving_samples import VERSION, write_drives
from models import detector
from nuscenes_made_up import some

CLASSES = ("car", "pedestrian", "traffic_cone")
RULES = NuScenesProtocol(classes=CLASSES)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> KeyFrames:
    return nuscenes_scenes(str(write_drives(tmp_path_factory.mktemp("drives"))), VERSION, "all")


def processor(classes: Sequence[str] = CLASSES) -> CameraProcessor:
    return CameraProcessor(["CAM_FRONT", "CAM_BACK"], classes, CameraView([18, 32]), CameraHistory(1, ids=()))


class Knowing(nn.Module):
    """Says what the annotations say, key frame by key frame, and changes it as it is told."""

    def __init__(self, infos: Sequence[SceneInfo]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.answers = [self.answer(info) for info in infos]
        self.asked = 0
        self.mirrored = False

    def answer(self, info: SceneInfo) -> Detections:
        """The annotated boxes of a key frame."""
        boxes = true_boxes(info, CLASSES)
        assert info.objects is not None
        assert boxes is not None
        labels = torch.tensor([CLASSES.index(name) for name in info.objects.names if name in CLASSES])
        return Detections(boxes, torch.linspace(0.9, 0.4, len(boxes)), labels)

    def predict(self, images: Tensor, cameras: Cameras) -> list[Detections]:
        assert not self.training
        assert images.shape[1:] == (1, 2, 3, 18, 32)
        assert len(images) == len(cameras)
        self.asked += len(images)
        return self.answers[self.asked - len(images) : self.asked]

    def predict_mirrored(self, images: Tensor, cameras: Cameras) -> list[Detections]:
        self.mirrored = True
        return self.predict(images, cameras)


def evaluate(reader: Any, folder: Path, model: nn.Module | None = None, **given: Any) -> Result:
    part = NuScenesDetection(reader, folder=str(folder), **{"protocol": RULES, "workers": 0} | given)
    return part(Knowing(reader.infos) if model is None else model, processor(), CPU)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_detector_that_knows_everything(reader: KeyFrames, tmp_path: Path, batch_size: int) -> None:
    model = Knowing(reader.infos).train()
    result = evaluate(reader, tmp_path, model, batch_size=batch_size, workers=2)
    assert model.training
    assert result.metrics["mAP"] == pytest.approx(1)
    assert result.metrics["NDS"] == pytest.approx(1, abs=1e-5)
    for name in ("mATE", "mASE", "mAOE", "mAVE", "mAAE"):
        assert result.metrics[name] == pytest.approx(0, abs=1e-5)
    assert result.metrics["AP_traffic_cone"] == pytest.approx(1)
    assert (result.metrics["key_frames"], result.metrics["boxes"]) == (len(reader), 3 * len(reader))
    assert list(result.figures) == ["recall_precision", "key_frame_0", f"key_frame_{len(reader) // 2}"]
    assert result.headline[:2] == ("NDS", "mAP")
    rows = {row[0]: row for row in result.tables[1].rows}
    assert rows["car"][1:3] == (len(reader), len(reader))
    assert rows["traffic cone"][-3:] == ("-", "-", "-")
    boxes, meta = read_submission(tmp_path / "submission.json", [one.token for one in reader.infos], RULES)
    assert len(boxes) == 3 * len(reader)
    assert meta["use_camera"] is True
    again = judged(reader.infos, boxes, RULES)
    assert {name: again.summary()[name] for name in result.headline} == {n: result.metrics[n] for n in result.headline}
    expected = np.stack([info.truth.translations[0] for info in reader.infos if info.truth is not None])
    np.testing.assert_allclose(boxes.translation[boxes.label == 0], expected, atol=1e-5)


def test_errors_are_those_that_were_made(reader: KeyFrames, tmp_path: Path) -> None:
    """All boxes half a metre to the right and forward, a fifth longer, and standing still."""
    model = Knowing(reader.infos)
    for answer in model.answers:
        answer.boxes[:, :2] += 0.5
        answer.boxes[:, 4] *= 1.2
        answer.boxes[:, 7:9] = 0
    metrics = evaluate(reader, tmp_path, model, shown=0).metrics
    assert metrics["mATE"] == pytest.approx(0.5**0.5, abs=1e-5)
    assert metrics["mASE"] == pytest.approx(1 - 1 / 1.2, abs=1e-5)
    assert metrics["mAVE"] == pytest.approx((2.0 + 0.0) / 2, abs=1e-5)  # the car's speed, the child's, none of cones
    assert metrics["mAAE"] == pytest.approx(0.5, abs=1e-5)  # parked cars, but standing children
    assert metrics["AP_car"] == pytest.approx(0.75)  # not within half a metre


def test_classes_that_the_detector_does_not_know_count(reader: KeyFrames, tmp_path: Path) -> None:
    result = evaluate(reader, tmp_path, protocol=NuScenesProtocol(), shown=0)
    assert result.metrics["mAP"] == pytest.approx(0.3)


def test_in_a_suite(reader: KeyFrames, tmp_path: Path) -> None:
    """With a real, untrained detector: results, submission and report lie in the folder, and no figure is NaN."""
    model = detector()
    part = NuScenesDetection(reader, protocol=NuScenesProtocol(classes=("traffic_cone",)), shown=1, folder="cones")
    results = run_suite(model, processor(("car", "pedestrian")), {"cones": part}, tmp_path, CPU)
    assert results["cones"].metrics["mAP"] == 0
    assert "mAOE" not in results["cones"].metrics  # cones have none
    saved = tmp_path / "evaluation" / "cones.json"
    json.loads(saved.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert Result.load(saved).figures.keys() == {"recall_precision", "key_frame_0"}
    assert json.loads((tmp_path / "cones" / "submission.json").read_text())["results"].keys() == {
        info.token for info in reader.infos
    }
    assert "recall" in write_report(tmp_path).read_text()


def test_mirrored_pictures(reader: KeyFrames, tmp_path: Path) -> None:
    model = Knowing(reader.infos)
    evaluate(reader, tmp_path, model, mirrored=True, shown=0)
    assert model.mirrored


def test_key_frames_without_annotations_give_a_submission(reader: KeyFrames, tmp_path: Path) -> None:
    bare = KeyFrames([dataclasses.replace(info, objects=None, truth=None) for info in reader.infos], reader.root)
    result = evaluate(bare, tmp_path, Knowing(reader.infos), meta={"use_external": True}, shown=1)
    assert result.metrics == {"key_frames": len(reader), "boxes": 3 * len(reader)}
    assert not result.tables
    assert json.loads((tmp_path / "submission.json").read_text())["meta"]["use_external"] is True
    with pytest.raises(ValueError, match=f"none of {len(reader)} key frames is annotated"):
        judged(bare.infos, some(0), RULES)
    mixed = KeyFrames([*bare.infos[:2], *reader.infos[2:]], reader.root)
    with pytest.raises(ValueError, match=rf"2 of {len(reader)} key frames are not annotated, {reader.infos[0].token}"):
        evaluate(mixed, tmp_path, Knowing(reader.infos))


def test_annotations_without_attributes(reader: KeyFrames, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files of key frames of other libraries hold none: figures that are too low are not given without a word."""
    plain = [
        dataclasses.replace(info, truth=dataclasses.replace(info.truth, attributes=("",) * len(info.truth)))
        for info in reader.infos
        if info.truth is not None
    ]
    evaluate(reader, tmp_path, Knowing(reader.infos))
    assert "attribute" not in caplog.text
    metrics = evaluate(KeyFrames(plain, reader.root), tmp_path, Knowing(reader.infos)).metrics
    assert metrics["mAAE"] == 1
    assert "mAAE is 1 and NDS up to 0.1 too low" in caplog.text


def test_key_frames_without_objects_are_valid(reader: KeyFrames, tmp_path: Path) -> None:
    one = reader.infos[0]
    assert one.truth is not None
    assert one.objects is not None
    none = np.zeros((0, 3))
    truth = dataclasses.replace(
        one.truth, names=(), translations=none, sizes=none, rotations=np.zeros((0, 4)), velocities=np.zeros((0, 2)),
        attributes=(), num_lidar_pts=np.zeros(0, int), num_radar_pts=np.zeros(0, int),
    )  # fmt: skip
    empty = dataclasses.replace(one, truth=truth)
    model = Knowing([one])
    metrics = evaluate(KeyFrames([empty], reader.root), tmp_path, model).metrics
    assert (metrics["mAP"], metrics["NDS"], metrics["boxes"]) == (0, 0, 3)
    model = Knowing([one])
    model.answers = [Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.long))]
    assert evaluate(KeyFrames([one], reader.root), tmp_path, model).metrics["boxes"] == 0


def test_bad_input(reader: KeyFrames, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no key frame"):
        evaluate(KeyFrames([], reader.root), tmp_path)
    with pytest.raises(TypeError, match="Linear finds no boxes"):
        evaluate(reader, tmp_path, nn.Linear(1, 1))
    with pytest.raises(ValueError, match="batch_size is 0"):
        NuScenesDetection(reader, batch_size=0)
    model = Knowing(reader.infos)
    model.answers[2].boxes[1, 4] = torch.nan
    with pytest.raises(ValueError, match=f"sample {reader.infos[2].token}: detection 1 is not finite"):
        evaluate(reader, tmp_path, model)
    with pytest.raises(ValueError, match=r"has 3 boxes; protocol\.max_boxes is 2"):
        evaluate(reader, tmp_path, protocol=NuScenesProtocol(classes=CLASSES, max_boxes=2), shown=0)
    camera = dataclasses.replace(reader.infos[0].cameras["CAM_BACK"], path="samples/CAM_BACK/gone.jpg")
    cameras = {**reader.infos[0].cameras, "CAM_BACK": camera}
    broken = KeyFrames([dataclasses.replace(reader.infos[0], cameras=cameras)], reader.root)
    with pytest.raises(ValueError, match=r"gone\.jpg.*evaluation needs every picture"):
        evaluate(broken, tmp_path)
