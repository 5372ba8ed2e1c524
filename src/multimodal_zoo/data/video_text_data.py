"""The data module of video-text training, as a part: `video_text_data`."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.collate import PairCollate, PictureTransform, Row, transformed_clip
from multimodal_zoo.data.documents import Document, Video
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.datamodule import ImageTextData


class VideoCollate(PairCollate):
    """Pairs of a video and a text; `images` of a batch are `(batch, frames, 3, height, width)`."""

    def row(self, document: Document, random: Random) -> tuple[Tensor, Row]:
        """Frames by `image_transform`, all with the same crop: uint8 (frames, 3, height, width), and the row.

        Raises:
            UnusableError: a frame cannot be decoded.
            ValueError: the document has no video.
        """
        video = next((segment for segment in document.segments if isinstance(segment, Video)), None)
        if video is None:
            raise ValueError(f"document {document.key!r} has no video: use image_text_data for pictures")
        pixels = transformed_clip(self.image_transform, video.frames, document, random)
        return pixels, self.text_row(document, random)

    def finish(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Normalised float (batch, frames, 3, height, width)."""
        return super().finish(pixels.flatten(0, 1), generator).unflatten(0, pixels.shape[:2])


@DATASETS.register_module(name="video_text_data")
def video_text_data(
    processor: ImageTextProcessor,
    train: Any,
    batch_size: int,
    captions: CaptionSampler,
    image_transform: PictureTransform,
    order: Order,
    workers: int = 0,
    seed: int = 0,
) -> ImageTextData:
    """A LightningDataModule that gives batches of video-text pairs, as resumable as `image_text_data`.

    Args:
        processor: the model's image transform and tokenizer.
        train: reader of training pairs (`webdataset_videos`), or a mixture of such.
        batch_size: pairs in a batch, for each rank.
        captions: chooses the text of a pair.
        image_transform: one frame to uint8 of fixed size.
        order: order of the training samples; readers of shards have their own.
        workers: processes that read; 0 reads in this one.
        seed: of order, captions and crops.

    Raises:
        ValueError: a batch size below 1.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.datamodule import ImageTextData

    collate = VideoCollate(processor, captions, image_transform, [])
    return ImageTextData(
        train=train,
        validation=None,
        collate=collate,
        plain=collate,
        order=order,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
