"""The data module of camera rigs: batches, resuming, ranks, workers, and what it does with broken samples."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from driving_samples import VERSION, write_drives
from torch.testing import assert_close

from multimodal_zoo.data import camera_collate
from multimodal_zoo.data.camera_data import DetectionRules
from multimodal_zoo.data.camera_truth import BoxTruth
from multimodal_zoo.data.datamodule import ImageTextData
from multimodal_zoo.objectives.detection_batch import DetectionBatch
from multimodal_zoo.registry import build

AREA = [-50, -50, -5, 50, 50, 3]
PROCESSOR: dict[str, Any] = {
    "type": "camera_processor",
    "cameras": ["CAM_FRONT", "CAM_BACK"],
    "classes": ["car", "pedestrian", "traffic_cone"],
    "view": {"type": "camera_view", "size": [16, 32]},
    "history": {"type": "camera_history", "frames": 2, "ids": None, "interval": [0, 4]},
    "checks": {"type": "camera_checks", "coverage": 0.1},
}
AUGMENTS = {
    "image_augment": {
        "type": "camera_augment", "resize": [-0.06, 0.11], "crop": [-0.05, 0.05], "degrees": [-5.4, 5.4], "flip": 0.5,
    },
    "bev_augment": {
        "type": "bev_augment", "angle": [-0.3925, 0.3925], "scale": [0.95, 1.05], "translation": [0.05] * 3,
        "flip_y": 0.5, "flip_x": 0.5,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drives(tmp_path_factory.mktemp("drives"))


def made(folder: Path, rules: dict[str, Any] | None = None, frames: int = 2, **rest: Any) -> ImageTextData:
    """Four key frames to learn from, four to be judged by."""
    reader = {"type": "nuscenes_scenes", "folder": str(folder), "version": VERSION}
    config = {
        "type": "camera_detection_data",
        "train": {**reader, "split": "mini_train"},
        "validation": {**reader, "split": "mini_val"},
        "rules": {"type": "detection_rules", "truth": {"type": "box_truth"}, "area": AREA, **(rules or {})},
        "order": {"type": "shuffled_order"},
        "batch_size": 2,
        **rest,
    }
    processor = {**PROCESSOR, "history": {**PROCESSOR["history"], "frames": frames}}
    return build(config, processor=build(processor))


def assert_equal(one: DetectionBatch, other: DetectionBatch) -> None:
    assert one.keys == other.keys
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.cameras.lidar_to_image, other.cameras.lidar_to_image)
    for name in ("boxes", "labels", "velocity_known"):
        for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
            assert torch.equal(a, b)


def test_batches(folder: Path) -> None:
    """Boxes fall into the pictures with and without augmentation, by the matrices of the batch."""
    for rules in ({}, AUGMENTS):
        batches = list(made(folder, rules).train_dataloader())
        assert sorted(key for batch in batches for key in batch.keys) == [f"s0-{number}" for number in range(4)]
        for batch in batches:
            assert batch.images.shape == (2, 2, 2, 3, 16, 32)
            assert batch.images.dtype == torch.float32
            assert [labels.tolist() for labels in batch.labels] == [[0, 2]] * 2  # the child has no LiDAR point
            for boxes, matrices in zip(batch.boxes, batch.cameras.lidar_to_image[:, 0], strict=True):
                ahead, behind = (torch.cat([box[:3].double(), torch.ones(1).double()]) for box in boxes)
                assert float((matrices[0] @ ahead)[2]) > 5  # the car is ahead of the front camera, the cone behind
                assert float((matrices[1] @ behind)[2]) > 5
                assert float((matrices[1] @ ahead)[2]) < 0


def test_validation(folder: Path) -> None:
    """In order, nothing drawn: twice the same."""
    data = made(folder, AUGMENTS)
    first, again = list(data.val_dataloader()), list(data.val_dataloader())
    assert [key for batch in first for key in batch.keys] == [f"s1-{number}" for number in range(4)]
    for one, other in zip(first, again, strict=True):
        assert_equal(one, other)
    processor = data.plain.processor
    expected = processor.batch(data.validation.infos[:2], folder)
    assert_close(first[0].images, expected.images)
    assert_close(first[0].cameras.lidar_to_image, expected.cameras.lidar_to_image)


def test_resuming(folder: Path) -> None:
    """From a checkpoint on, the batches are those of a run that was never stopped."""
    whole = made(folder, AUGMENTS, batch_size=1)
    expected = [batch for _ in range(2) for batch in whole.train_dataloader()]
    data = made(folder, AUGMENTS, batch_size=1)
    loader = iter(data.train_dataloader())
    found = [next(loader) for _ in range(3)]
    again = made(folder, AUGMENTS, batch_size=1)
    again.load_state_dict(data.state_dict())
    found += [batch for _ in range(2) for batch in again.train_dataloader()]
    assert len(found) == len(expected) == 8
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)
    assert {batch.keys for batch in expected[:4]} == {batch.keys for batch in expected[4:]}
    assert not torch.equal(expected[0].images, expected[4].images)


def test_two_ranks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks of one see what one rank of two sees, and share the validation."""
    (expected, _) = list(made(folder, AUGMENTS).train_dataloader())
    halves = []
    for rank in range(2):
        data = made(folder, AUGMENTS, batch_size=1)
        monkeypatch.setattr(ImageTextData, "_distributed", lambda self, rank=rank: (rank, 2))
        halves.append((next(iter(data.train_dataloader())), list(data.val_dataloader())))
    assert_close(torch.cat([half.images for half, _ in halves]), expected.images)
    assert [key for half, _ in halves for key in half.keys] == list(expected.keys)
    assert [key for _, batches in halves for one in batches for key in one.keys] == [f"s1-{n}" for n in range(4)]


@pytest.mark.multiprocess
def test_workers(folder: Path) -> None:
    """Reading in another process changes nothing."""
    for one, other in zip(
        made(folder, AUGMENTS, workers=1).train_dataloader(), made(folder, AUGMENTS).train_dataloader(), strict=True
    ):
        assert_equal(one, other)


def test_broken_pictures(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In training the sample is left out, counted and named; in evaluation the file is named."""
    shutil.copytree(folder, tmp_path / "drives")
    for scene in range(2):
        picture = tmp_path / "drives" / f"samples/CAM_BACK/{scene}_6.jpg"
        picture.write_bytes(picture.read_bytes()[:200])
    data = made(tmp_path / "drives", frames=1, batch_size=1)
    with caplog.at_level(logging.WARNING):
        keys = [key for batch in data.train_dataloader() for key in batch.keys]
    assert len(keys) == 4
    assert "s0-1" not in keys
    assert "data.train: 1 skipped: broken image 1 (s0-1 (" in caplog.text
    assert "CAM_BACK/0_6.jpg" in caplog.text
    with pytest.raises(ValueError, match=r"sample s1-1: broken image: .*CAM_BACK/1_6\.jpg; every picture is needed"):
        list(data.val_dataloader())


def test_key_frames_without_objects(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are samples like others, or give way to others with objects."""
    far = [10_000, -50, -5, 10_050, 50, 3]
    for batch in made(folder, {"area": far}).train_dataloader():
        assert [boxes.shape for boxes in batch.boxes] == [(0, 9)] * 2
    data = made(folder, {"replace_empty": True}, batch_size=1)
    for number in range(3):  # objects in the last key frame alone
        data.train.infos[number].objects.num_lidar_pts[:] = 0
    assert [batch.keys for batch in data.train_dataloader()] == [("s0-3",)] * 4
    data.train.infos[3].objects.num_lidar_pts[:] = 0
    monkeypatch.setattr(camera_collate, "PATIENCE", 20)
    with pytest.raises(ValueError, match=r"no usable sample; .*no objects"):
        list(data.train_dataloader())


def test_boxes_that_are_no_numbers(folder: Path) -> None:
    data = made(folder)
    data.train.infos[2].objects.boxes[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"sample s0-2: box 0 is \[nan, "):
        list(data.train_dataloader())


def test_refusals(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.batch_size is 0"):
        made(folder, batch_size=0)
    with pytest.raises(ValueError, match=r"data\.rules\.area is"):
        DetectionRules(BoxTruth(), [0, 0, 0, 0, 1, 1])
