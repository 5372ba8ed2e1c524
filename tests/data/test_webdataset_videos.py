"""Videos in tar shards: their frames share a crop, broken ones are counted, runs resume."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from multimodal_zoo.data.captions import TextCaption
from multimodal_zoo.data.documents import Document, Text, Video
from multimodal_zoo.data.media import VideoFrames
from multimodal_zoo.data.order import ShuffledOrder
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.data.transforms import RandomResizedCrop
from multimodal_zoo.data.video_text_data import VideoCollate, video_text_data
from multimodal_zoo.data.webdataset_videos import WebdatasetVideos

av = pytest.importorskip("av")


def video(level: int, frames: int = 9) -> bytes:
    """A clip of flat pictures that get brighter from `level` on, ten a frame."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(frames):
            picture = np.full((24, 32, 3), level + 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.fixture
def shards(make_tar: Callable[..., Path]) -> list[str]:
    members: list[list[tuple[str, bytes]]] = [[], []]
    for number in range(7):
        clip = b"no video" if number == 3 else video(20 + 10 * number)
        members[number % 2] += [(f"{number}.mp4", clip), (f"{number}.txt", f"clip {number}".encode())]
    members[0] += [("8.txt", b"alone"), ("9.mp4", video(10))]
    return [str(make_tar(f"{n}.tar", content)) for n, content in enumerate(members)]


def data(shards: list[str], processor: ImageTextProcessor) -> Any:
    reader = WebdatasetVideos(shards, streams=1, shuffle=2, samples_per_epoch=6, media=VideoFrames(3))
    crop = RandomResizedCrop(16, (0.3, 1.0))
    return video_text_data(processor, reader, 2, TextCaption(), crop, ShuffledOrder(), seed=5)


def test_batches_hold_frames(shards: list[str], processor: ImageTextProcessor) -> None:
    module = data(shards, processor)
    batches = list(module.train_dataloader())
    assert [tuple(batch.images.shape) for batch in batches] == [(2, 3, 3, 16, 16)] * 3
    assert {key for batch in batches for key in batch.keys} == {"0", "1", "2", "4", "5", "6"}
    grey = processor.transform.mean.view(3, 1, 1), processor.transform.std.view(3, 1, 1)
    for batch in batches:
        levels = (batch.images * grey[1] + grey[0]).mean((2, 3, 4)) * 255
        for key, row in zip(batch.keys, levels, strict=True):  # the middles of three thirds of nine frames
            expected = torch.tensor([10.0, 40.0, 70.0]) + 20 + 10 * int(key)
            torch.testing.assert_close(row, expected, atol=4.0, rtol=0)
    assert dict(module.train.skips.counts) == {"broken video": 1, "missing video": 1, "missing caption": 1}


def test_a_resumed_run_sees_the_same_batches(shards: list[str], processor: ImageTextProcessor) -> None:
    whole = list(data(shards, processor).train_dataloader())
    first = data(shards, processor)
    list(islice(first.train_dataloader(), 1))
    second = data(shards, processor)
    second.load_state_dict(first.state_dict())
    for found, expected in zip(second.train_dataloader(), whole[1:], strict=True):
        assert found.keys == expected.keys
        assert torch.equal(found.images, expected.images)


def test_frames_share_their_crop(processor: ImageTextProcessor) -> None:
    from random import Random

    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    document = Document([Video([noise, noise], 5.0), Text("x")], {"key": "k"})
    collate = VideoCollate(processor, TextCaption(), RandomResizedCrop(16, (0.2, 0.5)), [])
    random = Random(1)
    first, _ = collate.row(document, random)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], collate.row(document, random)[0][0])
    with pytest.raises(ValueError, match="document 'k' has no video"):
        collate.row(Document([Text("x")], {"key": "k"}), random)
