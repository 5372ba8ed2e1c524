"""A video's feature is the mean of its frames', and objectives see one row for each video."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from multimodal_zoo.evaluation.video import encode_video
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.objectives.contrastive import ContrastiveObjective
from multimodal_zoo.objectives.frames import FrameMean, VideoTextObjective
from multimodal_zoo.zoo import build_model, declaration

SMALL = ["model.image.blocks.depth=1", "model.text.blocks.depth=1"]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build_model(declaration("eva_clip_tiny", SMALL))


@pytest.fixture(scope="module")
def batch() -> ImageTextBatch:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(4, 3, 3, 48, 48, generator=generator)
    return ImageTextBatch(frames, torch.randint(1, 50, (4, 5), generator=generator), list("abcd"))


def test_the_mean_of_frames(model: torch.nn.Module, batch: ImageTextBatch) -> None:
    found = FrameMean(model).encode_image(batch.images)
    assert found.shape == (4, 256)
    torch.testing.assert_close(found, F.normalize(encode_video(model, batch.images), dim=-1))
    with pytest.raises(ValueError, match=r"frames: expected \(batch, frames, 3, height, width\), got \(4, 3, 48, 48\)"):
        FrameMean(model).encode_image(batch.images[:, 0])


@pytest.mark.parametrize("chunk", [None, 2])
def test_the_inner_objective_sees_one_row_for_each_video(
    model: torch.nn.Module, batch: ImageTextBatch, chunk: int | None
) -> None:
    outputs = VideoTextObjective(ContrastiveObjective(chunk_size=chunk))(model, batch)
    scale, image = model.scale(), FrameMean(model).encode_image(batch.images)
    logits = scale * image @ model.encode_text(batch.ids).T
    target = torch.arange(4)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(outputs["loss"], expected)
    outputs["loss"].backward()
    assert model.image.patches.weight.grad is not None


def test_a_still_picture_as_a_video_of_one_frame(model: torch.nn.Module, batch: ImageTextBatch) -> None:
    still = ImageTextBatch(batch.images[:, 0], batch.ids, batch.keys)
    video = ImageTextBatch(batch.images[:, :1], batch.ids, batch.keys)
    objective = ContrastiveObjective()
    torch.testing.assert_close(VideoTextObjective(objective)(model, video)["loss"], objective(model, still)["loss"])
