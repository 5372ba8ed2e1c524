"""Fast-BEV M0 as one graph, on a recorded key frame of nuScenes, where that is at hand outside of the project."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.data.camera_reader import camera_info_file
from multimodal_zoo.export.detector_folder import export_detector
from multimodal_zoo.export.detector_samples import DetectorSample, recorded_sample

pytest.importorskip("onnxruntime")
GOLDENS = Path(os.environ.get("MMZOO_GOLDENS") or Path(__file__).parents[3] / "shared" / "goldens")
SAMPLE = GOLDENS.parent / "data" / "nuscenes_sample"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SAMPLE.is_dir(), reason="the recorded sample of nuScenes is not at hand"),
]


#: Half of the published size, 256 x 704, a side: what differs is four times the time.
HALF = "model.processor.view.size=[128,352]"


@pytest.fixture(scope="module")
def seen() -> tuple[Any, DetectorSample]:
    """M0 with random weights and spread-out scores, and what it sees; the frame stands for its earlier ones too."""
    model = zoo.create("fast_bev_m0", overrides=[HALF]).eval()
    with torch.no_grad():
        for part in (model.head.classes, model.head.boxes, model.head.directions):
            part.weight.mul_(10)
    frame = camera_info_file(str(SAMPLE / "keyframe.json"), str(SAMPLE))[0]
    return model, recorded_sample(model, frame.info, frame.root)


@pytest.mark.parametrize("calibration", ["tables", "motion"])
def test_onnxruntime_agrees_with_eager_mode(
    seen: tuple[Any, DetectorSample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calibration: str
) -> None:
    model, sample = seen
    monkeypatch.setattr("multimodal_zoo.export.detector_folder.TRIED", 0)  # the recorded frame alone
    rig = sample.cameras.lidar_to_image[0, 0] if calibration == "motion" else None
    more: dict[str, Any] = {"int8": True} if calibration == "tables" else {}
    facts = export_detector(model, tmp_path / "out", calibration=calibration, rig=rig, samples=[sample], **more)
    assert sample.images.shape == (1, 4, 6, 3, 128, 352)
    assert facts["outputs"]["boxes"]["shape"] == ["anchors", 9]
    assert max(facts["largest_difference"].values()) < 1e-3
    if more:
        (told,) = facts["int8"]["drift"]
        assert 0 < told["centre_mean"] < 0.1
        assert facts["int8"]["bytes"] < facts["bytes"] / 3
