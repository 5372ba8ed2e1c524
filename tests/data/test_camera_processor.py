"""From recorded key frames to a model's inputs, and calibrations that cannot be."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from driving_samples import FOCAL, HEIGHT, SPEED, VERSION, write_drives
from PIL import Image
from torch.testing import assert_close

from multimodal_zoo.data.bev_augment import BevChange
from multimodal_zoo.data.camera_augment import CameraAugment, CameraView
from multimodal_zoo.data.camera_checks import CameraChecks, covered
from multimodal_zoo.data.camera_history import CameraHistory
from multimodal_zoo.data.camera_infos import CameraInfo, SceneInfo
from multimodal_zoo.data.camera_processor import CameraProcessor
from multimodal_zoo.data.camera_reader import KeyFrames, nuscenes_scenes
from multimodal_zoo.data.skips import UnusableError

CAMERAS = ["CAM_FRONT", "CAM_BACK"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> KeyFrames:
    return nuscenes_scenes(str(write_drives(tmp_path_factory.mktemp("drives"))), VERSION, "mini_train")


def made(cameras: list[str], frames: int = 2, **rest: Any) -> CameraProcessor:
    history = CameraHistory(frames, tuple(range(frames - 1)))
    return CameraProcessor(cameras, ["car"], CameraView([16, 32]), history, **rest)


def test_sample(reader: KeyFrames) -> None:
    """Pixels are those of the files; a point ahead falls where the pinhole says, now and a quarter of a second ago."""
    info = reader.infos[2]
    sample = made(CAMERAS, 2, checks=CameraChecks()).sample(info, reader.root)
    assert sample.pixels.shape == (2, 2, 3, 16, 32)
    assert sample.present.all()
    for frame, path in ((0, "samples/CAM_FRONT/0_12.jpg"), (1, "sweeps/CAM_FRONT/0_9.jpg")):
        picture = np.asarray(Image.open(reader.root / path))[1:17]
        np.testing.assert_array_equal(sample.pixels[frame, 0].permute(1, 2, 0).numpy(), picture)
    point = torch.tensor([1.0, 20.0, -1.0, 1.0], dtype=torch.float64)
    # the calibration of now, taken 2 ms after the LiDAR, is moved by the way between the LiDAR and the earlier picture
    for frame, back in ((0, 0.0), (1, SPEED * (0.25 - 0.002))):
        depth = 20.0 - 0.5 - SPEED * 0.002 + back
        found = sample.lidar_to_image[frame, 0] @ point
        assert float(found[2]) == pytest.approx(depth, abs=1e-6)
        assert float(found[0] / found[2]) == pytest.approx(16 + FOCAL * 1.0 / depth, abs=1e-6)
        row = 9 + FOCAL * (1.5 - HEIGHT + 1.0) / depth - 1
        assert float(found[1] / found[2]) == pytest.approx(row, abs=1e-6)


def test_normalised(reader: KeyFrames) -> None:
    processor = made(CAMERAS)
    samples = [processor.sample(info, reader.root) for info in reader.infos[:2]]
    images, cameras = processor.joined(samples)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    expected = (samples[1].pixels[0, 1].float() - mean[:, None, None]) / std[:, None, None]
    assert_close(images[1, 0, 1], expected)
    assert cameras.size == (16, 32)
    assert cameras.present is None
    batch = processor.batch(reader.infos[:2], reader.root)
    assert_close(batch.images, images)
    assert batch.keys == tuple(sample.key for sample in samples)


def test_cameras_in_any_number(reader: KeyFrames) -> None:
    """In the model's order; those that are not there give zeros, and see nothing."""
    processor = made(["CAM_BACK", "CAM_ROOF", "CAM_FRONT"])
    sample = processor.sample(reader.infos[1], reader.root)
    assert sample.present.tolist() == [[True, False, True]] * 2
    images, cameras = processor.joined([sample])
    assert cameras.present is not None
    assert not images[:, :, 1].any()
    assert (sample.lidar_to_image[:, 1] @ torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))[:, 2].tolist() == [
        -1,
        -1,
    ]
    alone = made(["CAM_BACK"]).sample(reader.infos[1], reader.root)
    assert_close(alone.lidar_to_image[:, 0], sample.lidar_to_image[:, 0])
    with pytest.raises(ValueError, match=r"sample s0-1: none of processor\.cameras \['front'\] .* 'CAM_BACK'\]"):
        made(["front"]).sample(reader.infos[1], reader.root)  # other names would be black pictures


def test_augmented(reader: KeyFrames) -> None:
    """Each picture draws for itself; the scene's change goes for all of them."""
    processor = made(CAMERAS)
    info, change = reader.infos[2], BevChange(True, False, 0.3, 1.05, (0.1, 0.2, 0.0))
    augment = CameraAugment([-0.06, 0.11], [-0.05, 0.05], [-5.4, 5.4], 0.5)
    one, other = (processor.sample(info, reader.root, Random(7), augment, change) for _ in range(2))
    assert torch.equal(one.pixels, other.pixels)
    random, plain = Random(7), processor.sample(info, reader.root, Random(7), None, change)
    inverse = torch.linalg.inv(change.matrix())
    for frame in range(2):
        for number, name in enumerate(CAMERAS):
            drawn = augment.draw((18, 32), processor.view, random)
            whole = torch.eye(4, dtype=torch.float64)
            whole[:3, :3] = drawn.map() @ torch.linalg.inv(processor.view.change((18, 32)).map())
            assert_close(one.lidar_to_image[frame, number], whole @ plain.lidar_to_image[frame, number])
            still = processor.sample(info, reader.root)
            assert_close(plain.lidar_to_image[frame, number], still.lidar_to_image[frame, number] @ inverse, msg=name)
    with pytest.raises(ValueError, match="augmentation needs a source of random numbers"):
        processor.sample(info, reader.root, augment=augment)


def test_repeated_time(reader: KeyFrames) -> None:
    """A first key frame without a past reads its own pictures again, from where it stands."""
    history = CameraHistory(3, (0, 1), at_edges="past_only")
    processor = CameraProcessor(CAMERAS, ["car"], CameraView([16, 32]), history)
    sample = processor.sample(reader.infos[0], reader.root)
    assert torch.equal(sample.pixels[0], sample.pixels[2])
    assert_close(sample.lidar_to_image[0], sample.lidar_to_image[1])


def test_broken_pictures(reader: KeyFrames, tmp_path: Path) -> None:
    processor = made(CAMERAS)
    with pytest.raises(UnusableError, match=r"missing image file: .*CAM_FRONT/0_0\.jpg"):
        processor.sample(reader.infos[0], tmp_path)
    with pytest.raises(ValueError, match=r"sample s0-0: missing image file: .*CAM_FRONT/0_0\.jpg"):
        processor.batch(reader.infos[:1], tmp_path)


def changed(info: SceneInfo, name: str, **fields: Any) -> SceneInfo:
    """With another calibration of one camera."""
    cameras = {**info.cameras, name: dataclasses.replace(info.cameras[name], **fields)}
    return dataclasses.replace(info, cameras=cameras)


def test_calibrations_for_another_size(reader: KeyFrames) -> None:
    """By the size that the source says, or else by where the principal point lies."""
    processor, info = made(CAMERAS, checks=CameraChecks()), reader.infos[0]
    with pytest.raises(ValueError, match=r"CAM_BACK .*has 18x32 pixels, but its calibration is for 900x1600"):
        processor.sample(changed(info, "CAM_BACK", size=(900, 1600)), reader.root)
    large = np.array([[1260.0, 0, 800], [0, 1260, 450], [0, 0, 1]])
    with pytest.raises(ValueError, match=r"CAM_BACK .*principal point \[800\.0, 450\.0\] lies far from the middle"):
        processor.sample(changed(info, "CAM_BACK", size=None, intrinsic=large), reader.root)


def test_singular_calibrations(reader: KeyFrames) -> None:
    for checks in (CameraChecks(), None):
        processor = made(CAMERAS, checks=checks)
        for entry, value in (((0, 0), 0.0), ((1, 1), np.nan), ((0, 0), -20.0)):
            intrinsic = reader.infos[0].cameras["CAM_FRONT"].intrinsic.copy()
            intrinsic[entry] = value
            with pytest.raises(ValueError, match=r"singular or not finite|must be above 0"):
                processor.sample(changed(reader.infos[0], "CAM_FRONT", intrinsic=intrinsic), reader.root)


@pytest.mark.parametrize("frame", ["inverse", "ego", "world", "mirrored", "upside down", "nan", "scaled"])
def test_poses_in_a_wrong_frame(reader: KeyFrames, frame: str) -> None:
    """Each is refused with camera and value; the right one is not."""
    info, processor = reader.infos[1], made(CAMERAS, checks=CameraChecks())
    pose = info.cameras["CAM_FRONT"].sensor2lidar
    wrong = {
        "inverse": np.linalg.inv(pose),
        "ego": info.lidar2ego @ pose,
        "world": info.lidar2global @ pose,
        "mirrored": pose @ np.diag([-1.0, 1.0, 1.0, 1.0]),
        "upside down": pose @ np.diag([-1.0, -1.0, 1.0, 1.0]),
        "nan": pose * np.nan,
        "scaled": pose @ np.diag([2.0, 2.0, 2.0, 1.0]),
    }[frame]
    processor.sample(info, reader.root)
    with pytest.raises(ValueError, match=f"sample {info.token}, CAM_FRONT: "):
        processor.sample(changed(info, "CAM_FRONT", sensor2lidar=wrong), reader.root)


def test_cameras_that_look_down(reader: KeyFrames) -> None:
    """Without a horizon in sight nothing is compared with it."""
    info = reader.infos[1]
    down = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])  # x right, y back, z down
    CameraChecks().rig({"CAM_DOWN": CameraInfo("", np.eye(3), down)}, info.lidar2ego, "k")


def test_low_coverage(reader: KeyFrames, caplog: pytest.LogCaptureFixture) -> None:
    """Two cameras of 77 degrees see less than half of the ground; it is said once."""
    info = reader.infos[0]
    assert covered(info.cameras, info.lidar2ego) == pytest.approx(2 * 2 * np.degrees(np.arctan(0.8)) / 360, abs=0.1)
    processor = made(CAMERAS, checks=CameraChecks(coverage=0.6))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            processor.sample(info, reader.root)
    assert caplog.text.count("cameras see") == 1
    assert "processor.checks.coverage" in caplog.text


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"processor\.cameras is \['A', 'A'\]"):
        made(["A", "A"])
    with pytest.raises(ValueError, match=r"processor\.std is"):
        made(["A"], std=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match=r"processor\.checks\.height is \[3, 1\]"):
        CameraChecks(height=[3, 1])
