"""A recorded key frame of nuScenes, where it is at hand: it lies beside the golden cases, outside of the project."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.bev.boxes import CLASSES, gravity_centres
from multimodal_zoo.bev.geometry import lidar_to_image
from multimodal_zoo.data.camera_augment import CameraView
from multimodal_zoo.data.camera_checks import CameraChecks, covered
from multimodal_zoo.data.camera_history import CameraHistory
from multimodal_zoo.data.camera_infos import CAMERA_NAMES
from multimodal_zoo.data.camera_processor import CameraProcessor
from multimodal_zoo.data.camera_reader import camera_info_file
from multimodal_zoo.data.camera_truth import BoxTruth

GOLDENS = Path(os.environ.get("MMZOO_GOLDENS") or Path(__file__).parents[3] / "shared" / "goldens")
SAMPLE = GOLDENS.parent / "data" / "nuscenes_sample"
pytestmark = pytest.mark.skipif(not SAMPLE.is_dir(), reason="the recorded sample of nuScenes is not at hand")


def test_boxes_in_pictures() -> None:
    """Centres fall where the published file says, in all six cameras."""
    info = camera_info_file(str(SAMPLE / "keyframe.json"), str(SAMPLE)).infos[0]
    told = json.loads((SAMPLE / "keyframe_camera_boxes.json").read_text())["camera_instances"]
    assert info.objects is not None
    centres = gravity_centres(torch.from_numpy(info.objects.boxes))
    points = torch.cat([centres, torch.ones(len(centres), 1, dtype=torch.float64)], dim=1)
    compared = 0
    for name, camera in info.cameras.items():
        matrix = lidar_to_image(torch.from_numpy(camera.intrinsic), torch.from_numpy(camera.sensor2lidar))
        rows = points @ matrix.T
        found = torch.cat([rows[:, :2] / rows[:, 2:3], rows[:, 2:3]], dim=1)
        for one in told[name]:
            expected = torch.tensor([*one["center_2d"], one["depth"]], dtype=torch.float64)
            assert float((found - expected).abs().max(dim=1).values.min()) < 0.02
            compared += 1
    assert compared > 60


def test_sample() -> None:
    """The view's map stands before the calibration, and the checks agree with a car that drove."""
    frame = camera_info_file(str(SAMPLE / "keyframe.json"), str(SAMPLE))[0]
    view = CameraView([256, 704])
    processor = CameraProcessor(CAMERA_NAMES, CLASSES, view, CameraHistory(1, ()), checks=CameraChecks())
    sample = processor.sample(frame.info, frame.root)
    assert sample.pixels.shape == (1, 6, 3, 256, 704)
    assert 40 < float(sample.pixels.float().mean()) < 180
    camera = frame.info.cameras["CAM_BACK"]
    whole = lidar_to_image(
        torch.from_numpy(camera.intrinsic), torch.from_numpy(camera.sensor2lidar), view.change((900, 1600)).map()
    )
    assert_close(sample.lidar_to_image[0, 3], whole)
    assert covered(frame.info.cameras, frame.info.lidar2ego) > 0.95


def test_old_records() -> None:
    """Calibrations of another car's drive pass the checks; velocities that are null are not known."""
    infos = camera_info_file(str(SAMPLE / "two_keyframes.json"), str(SAMPLE)).infos
    for info in infos:
        CameraChecks().rig(info.cameras, info.lidar2ego, info.token)
        found = BoxTruth()(info, CLASSES)
        assert found.boxes.isfinite().all()
        assert info.objects is not None
        known = np.isfinite(info.objects.boxes[:, 7])[info.objects.num_lidar_pts > 0]
        assert found.velocity_known.tolist() == known.tolist()
