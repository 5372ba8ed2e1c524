"""Frames that are remembered give what encoding all of them again gives."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

sys.path.insert(0, str(Path(__file__).parents[1] / "bev"))  # made-up cameras and models

from models import detector
from rigs import rig

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.geometry import pose
from multimodal_zoo.inference.streaming_detection import DrivenFrame, StreamingDetector

SIZE = (32, 88)
LIDAR = pose(torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), torch.tensor([0.9, 0.0, 1.8]))


def _drive(frames: int) -> list[DrivenFrame]:
    """A car that goes round a bend, twice a second; its rig is not quite the same at all times."""
    found = []
    for number in range(frames):
        angle, time = 0.05 * number, 0.5 * number
        c, s = math.cos(angle), math.sin(angle)
        ego = pose(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]), torch.tensor([300 + 3.0 * time, 900 + time, 0.0]))
        matrices = rig(3, SIZE, batch=1 + number).lidar_to_image[number, 0]
        found.append(DrivenFrame(torch.randn(3, 3, *SIZE), matrices, ego, LIDAR, time))
    return found


def _again(model: torch.nn.Module, drive: list[DrivenFrame], places: list[int]) -> list[torch.Tensor]:
    """All frames from their pictures; the matrices of earlier ones by their poses in the world."""
    now = drive[places[0]].lidar2global
    matrices = [drive[p].lidar_to_image @ torch.linalg.inv(drive[p].lidar2global) @ now for p in places]
    images = torch.stack([drive[p].images for p in places])[None]
    with torch.no_grad():
        return list(model.predict(images, Cameras(torch.stack(matrices)[None], SIZE))[0])


def test_a_drive_is_seen_as_if_all_pictures_were_encoded_again() -> None:
    model, drive = detector(frames=4), _drive(7)
    stream = StreamingDetector(model)
    for number, frame in enumerate(drive):
        found = stream.step(frame)
        places = [max(0, number - back) for back in range(4)]  # at the start the oldest serves
        for ours, expected in zip(found, _again(model, drive, places), strict=True):
            assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert len(stream._kept) == 4


def test_each_picture_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, drive = detector(frames=3), _drive(5)
    encoded: list[int] = []
    whole = model.encode
    monkeypatch.setattr(model, "encode", lambda images: encoded.append(images.shape[1]) or whole(images))
    stream = StreamingDetector(model, offsets=(0.5, 1.0))
    for frame in drive:
        stream.step(frame)
    assert encoded == [1] * 5


def test_frames_that_were_lost_leave_the_current_one() -> None:
    model, drive = detector(frames=2), _drive(4)
    stream = StreamingDetector(model, offsets=(0.5,), tolerance=0.2)
    for number in (0, 1, 3):
        found = stream.step(drive[number])
    for ours, expected in zip(found, _again(model, drive, [3, 3]), strict=True):
        assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    stream.reset()
    for ours, expected in zip(stream.step(drive[1]), _again(model, drive, [1, 1]), strict=True):
        assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_wrong_times_are_refused() -> None:
    model, drive = detector(frames=3), _drive(2)
    with pytest.raises(ValueError, match=r"model\.frames is 3"):
        StreamingDetector(model, offsets=(0.5,))
    with pytest.raises(ValueError, match="growing"):
        StreamingDetector(model, offsets=(1.0, 0.5))
    stream = StreamingDetector(model, offsets=(0.5, 1.0))
    stream.step(drive[1])
    with pytest.raises(ValueError, match="reset"):
        stream.step(drive[0])


def test_a_camera_that_was_lost_stays_lost_in_its_frame() -> None:
    model, drive = detector(frames=2), _drive(2)
    gone = torch.tensor([True, False, True])
    dark = dataclasses.replace(drive[0], images=drive[0].images * torch.tensor([1.0, 9.0, 1.0])[:, None, None, None])
    found = []
    for first in (drive[0], dark):
        stream = StreamingDetector(model, offsets=(0.5,))
        stream.step(dataclasses.replace(first, present=gone))
        found.append(stream.step(drive[1]))
    for one, other in zip(*found, strict=True):  # what a missing camera holds changes nothing, then or later
        assert_close(one, other)
    stream.reset()
    stream.step(drive[0])
    assert not torch.equal(stream.step(drive[1]).scores, found[0].scores)


def test_the_same_bits_as_encoding_the_frames_one_by_one() -> None:
    """Batches of other sizes round otherwise; apart from that nothing differs."""
    model, drive = detector(frames=4), _drive(5)
    stream = StreamingDetector(model)
    for frame in drive:
        found = stream.step(frame)
    earlier, now = [drive[place] for place in (3, 2, 1)], drive[4].lidar2global
    moved = [one.lidar_to_image @ (torch.linalg.inv(one.lidar2global) @ now) for one in earlier]
    with torch.no_grad():
        each = [model.encode(one.images[None, None]) for one in (drive[4], *earlier)]
        maps = [torch.cat(level, dim=1) for level in zip(*each, strict=True)]
        bev = model.bev(maps, Cameras(torch.stack([drive[4].lidar_to_image, *moved])[None], SIZE))
        (again,) = model.head.select([model.head(bev)])
    for ours, expected in zip(found, again, strict=True):
        assert torch.equal(ours, expected)
