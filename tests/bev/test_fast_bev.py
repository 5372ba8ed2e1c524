"""The whole detector at a tiny size."""

from __future__ import annotations

import pytest
import torch
from models import detector, node
from rigs import rig
from torch.testing import assert_close

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import create


def test_samples_of_a_batch_are_seen_alone() -> None:
    model = detector(frames=2)
    cameras, images = rig(3, batch=2, frames=2, ahead=1.0), torch.randn(2, 2, 3, 3, 32, 88)
    together = model.predict(images, cameras)
    for row in range(2):
        one = Cameras(cameras.lidar_to_image[row : row + 1], cameras.size)
        (alone,) = model.predict(images[row : row + 1], one)
        for found, expected in zip(together[row], alone, strict=True):
            assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert len(alone.boxes)


def test_gradients_reach_every_part_through_all_frames() -> None:
    model = detector(frames=2).train()
    images = torch.randn(1, 2, 3, 3, 32, 88, requires_grad=True)
    maps = model(images, rig(3, frames=2, ahead=1.0))
    sum(one.square().mean() for one in maps).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
    assert bool(images.grad[:, 1].any())


def test_mirrored_pictures_show_the_same_scene() -> None:
    """A detector that sees a picture and its mirror image alike would find everything twice at one place."""
    model = detector()
    cameras, images = rig(3), torch.randn(1, 1, 3, 3, 32, 88)
    (found,) = model.predict_mirrored(images, cameras)
    flipped = torch.eye(4, dtype=torch.float64)
    flipped[0, 0], flipped[0, 2] = -1, 88
    point = torch.tensor([1.0, 9.0, 0.5, 1.0], dtype=torch.float64)
    u, v, depth, _ = cameras.lidar_to_image[0, 0, 0] @ point
    mirrored = flipped @ cameras.lidar_to_image[0, 0, 0] @ point
    assert_close(mirrored[:2] / mirrored[2], torch.stack((88 - u / depth, v / depth)))
    with torch.no_grad():
        passes = [
            model(images, cameras),
            model(images.flip(-1), Cameras(flipped @ cameras.lidar_to_image, cameras.size)),
        ]
    for ours, expected in zip(found, model.head.select(passes)[0], strict=True):
        assert torch.equal(ours, expected)


def test_any_rig_and_a_missing_camera_are_read() -> None:
    model, images = detector(), torch.randn(1, 1, 5, 3, 32, 88)
    cameras = rig(5)
    gone = torch.ones(1, 1, 5, dtype=torch.bool)
    gone[..., 2] = False
    without = Cameras(cameras.lidar_to_image, cameras.size, gone)
    with torch.no_grad():
        changed = images.clone()
        changed[:, :, 2] = 100.0  # what a missing camera holds changes nothing
        for found, expected in zip(model(images, without), model(changed, without), strict=True):
            assert_close(found, expected)
        assert not torch.equal(model(images, without).classes, model(images, cameras).classes)


def test_weights_come_back_from_a_file(tmp_path) -> None:
    model, again = detector(), detector()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    images, cameras = torch.randn(1, 1, 3, 3, 32, 88), rig(3)
    with torch.no_grad():
        assert torch.equal(model(images, cameras).boxes, again(images, cameras).boxes)


def test_shapes_are_known_without_memory() -> None:
    with torch.device("meta"):
        model = build(node(frames=2))
    assert all(p.device.type == "meta" for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pyramid": {"type": "feature_pyramid", "in_channels": [4, 6], "channels": 4}}, r"pyramid\.in_channels"),
        ({"frames": 3}, r"bev_encoder\.in_channels is 8"),
    ],
)
def test_parts_that_do_not_fit(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build({**node(), **change})


def test_pictures_that_the_calibration_does_not_know() -> None:
    model = detector()
    with pytest.raises(ValueError, match="calibration and pictures"):
        model(torch.randn(1, 1, 3, 3, 64, 88), rig(3))
    with pytest.raises(ValueError, match=r"model\.frames is 1"):
        model(torch.randn(1, 2, 3, 3, 32, 88), rig(3, frames=2))


def test_an_eva_transformer_takes_the_place_of_the_image_encoder() -> None:
    """By overrides alone, for pictures of another shape than it was made for."""
    words = [
        *("bev@model.image_encoder=token_maps", "encoder@model.image_encoder.encoder=eva_vit_tiny"),
        "model.lift.grids=[{type: voxel_grid, counts: [10, 10, 2], size: [10.0, 10.0, 3.0], centre: [0, 0, -1]}]",
        *("model.bev_encoder.in_channels=64", "model.frames=1", "model.processor.history={frames: 1, ids: []}"),
    ]
    model = create("fast_bev_tiny", overrides=words)
    maps = model.train()(torch.randn(1, 1, 3, 3, 32, 88), rig(3))
    maps.classes.square().mean().backward()
    assert model.image_encoder.encoder.blocks.layers[0].attention.out.weight.grad.abs().sum() > 0
