"""Batches of pictures and clips alone: emoji held in memory, files, videos, validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.data.documents import Document, Image, Video
from multimodal_zoo.data.emu3_processor import Emu3PictureProcessor
from multimodal_zoo.data.order import ShuffledOrder
from multimodal_zoo.data.pixel_clips import SuccessiveFrames
from multimodal_zoo.data.pixel_data import PixelCollate, pixel_data
from multimodal_zoo.data.size_rule import Emu3ImageTransform, SizeRule
from multimodal_zoo.data.skips import Skips, UnusableError
from multimodal_zoo.data.transforms import FixedCrop, RandomResizedCrop
from multimodal_zoo.objectives.batch import PixelBatch


class Pictures:
    """Random pictures, and videos whose frames are all equal to their number."""

    def __init__(self, count: int, frames: int = 0) -> None:
        self.skips = Skips()
        random = np.random.default_rng(0)
        self.pictures = [random.integers(0, 256, (20, 20, 3), dtype=np.uint8) for _ in range(count)]
        self.frames = frames

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Document:
        if not self.frames:
            return Document([Image(self.pictures[index])], {"key": str(index)})
        frames = [np.full((20, 20, 3), 10 * number, np.uint8) for number in range(self.frames)]
        return Document([Video(list(frames), 12.0)], {"key": str(index)})

    def __iter__(self) -> Iterator[Document]:
        return (self[index] for index in range(len(self)))


@pytest.fixture
def processor() -> Emu3PictureProcessor:
    rule = SizeRule(factor=8, smallest=256, largest=256, ratio=5)
    return Emu3PictureProcessor(Emu3ImageTransform(rule, [0.5] * 3, [0.5] * 3, background=[255, 255, 255]))


def test_pictures(processor: Emu3PictureProcessor) -> None:
    reader = Pictures(6)
    data = pixel_data(processor, reader, 2, FixedCrop(16), [], ShuffledOrder(), validation=reader)
    batches = list(data.train_dataloader())
    assert sorted(key for batch in batches for key in batch.keys) == [str(number) for number in range(6)]
    for batch in batches:
        assert isinstance(batch, PixelBatch)
        expected = torch.stack([processor.images([reader.pictures[int(key)]])[0] for key in batch.keys])
        assert_close(batch.pixels, expected)
    (first, *_) = data.val_dataloader()
    assert first.keys == ["0", "1"]
    assert_close(first.pixels, torch.stack(processor.images(reader.pictures[:2])))


def test_validation_by_the_models_own_transform(processor: Emu3PictureProcessor) -> None:
    reader = Pictures(3)
    data = pixel_data(processor, reader, 3, None, [], ShuffledOrder(), validation=reader)
    (batch,) = data.val_dataloader()
    assert_close(batch.pixels, torch.stack(processor.images(reader.pictures)))


def test_clips(processor: Emu3PictureProcessor) -> None:
    reader = Pictures(8, frames=9)
    data = pixel_data(processor, reader, 8, FixedCrop(16), [], ShuffledOrder(), frames=4)
    (batch,) = data.train_dataloader()
    assert batch.pixels.shape == (8, 4, 3, 16, 16)
    numbers = ((batch.pixels[:, :, 0, 0, 0] * 0.5 + 0.5) * 255 / 10).round()
    assert torch.equal(numbers - numbers[:, :1], torch.arange(4.0).expand(8, -1))  # one after the other
    assert len(set(numbers[:, 0].tolist())) > 1  # from anywhere
    whole = pixel_data(processor, reader, 8, FixedCrop(16), [], ShuffledOrder())
    assert next(iter(whole.train_dataloader())).pixels.shape[1] == 9


def test_all_frames_have_one_crop(processor: Emu3PictureProcessor) -> None:
    picture = Pictures(1).pictures[0]
    collate = PixelCollate(processor, RandomResizedCrop(8, scale=(0.2, 0.5)), [], None)
    pixels, row = collate.row(Document([Video([picture] * 3, 1.0)], {"key": "a"}), Random(0))
    assert row.key == "a"
    assert torch.equal(pixels[0], pixels[1])
    assert torch.equal(pixels[0], pixels[2])


def test_a_short_video_is_unusable(processor: Emu3PictureProcessor) -> None:
    collate = PixelCollate(processor, FixedCrop(16), [], 4)
    with pytest.raises(UnusableError, match="too few frames"):
        collate.row(Pictures(1, frames=3)[0], Random(0))


def test_bad_numbers(processor: Emu3PictureProcessor) -> None:
    for words, arguments in (("batch_size is 0", {"batch_size": 0}), ("frames is 0", {"batch_size": 1, "frames": 0})):
        with pytest.raises(ValueError, match=words):
            pixel_data(processor, Pictures(1), image_transform=None, augment=[], order=ShuffledOrder(), **arguments)


def test_successive_frames(tmp_path: Path) -> None:
    media = SuccessiveFrames(4, rate=12.0)
    assert media.numbers(10, 12.0) == [3, 4, 5, 6]
    assert media.numbers(100, 24.0) == [46, 48, 50, 52]
    assert media.numbers(100, 0) == [48, 49, 50, 51]  # an unknown rate
    assert media.numbers(9, 6.0) == [3, 3, 4, 5]  # slower than wanted
    assert media.numbers(2, 12.0) == [0, 1, 1, 1]
    with pytest.raises(ValueError, match=r"media.rate is 0"):
        SuccessiveFrames(4, rate=0)
    av = pytest.importorskip("av")
    levels = [20, 40, 60, 80, 100, 120, 140, 160]
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    video = SuccessiveFrames(3, rate=5.0).read(tmp_path / "a.mp4", "a")
    assert video.rate == 5.0
    assert [float(np.asarray(frame).mean()) for frame in video.frames] == pytest.approx([40, 80, 120], abs=4)
