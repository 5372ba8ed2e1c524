"""Pictures and clips alone, for a visual tokenizer: their collation, and the data module as a part, `pixel_data`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.collate import (
    BatchTransform,
    PictureTransform,
    finished,
    transformed,
    transformed_clip,
    undrawn,
)
from multimodal_zoo.data.documents import Document, Video
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.processor import ImageProcessor
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.transforms import FixedCrop
from multimodal_zoo.objectives.batch import PixelBatch
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.datamodule import ImageTextData


class PixelRow(NamedTuple):
    """One picture or clip before batching, without its pixels."""

    key: str


class PixelCollate:
    """Turns documents into rows and rows into a batch; texts are not looked at.

    A document with a video gives a clip, any other its first picture. A batch holds one of the two kinds: sources of
    both are mixed batch by batch (`source_mixture`).

    Args:
        processor: gives the normalisation.
        image_transform: one picture to uint8 of fixed size; None where readers hold their pixels in memory.
        augment: transforms of whole batches, applied in order; the frames of clips count as pictures.
        frames: of a clip, taken one after the other from a random one on; None takes all.
    """

    def __init__(
        self,
        processor: ImageProcessor,
        image_transform: PictureTransform | None,
        augment: Sequence[BatchTransform],
        frames: int | None,
    ) -> None:
        self.processor = processor
        self.image_transform = image_transform
        self.augment = list(augment)
        self.frames = frames

    def row(self, document: Document, random: Random) -> tuple[Tensor, PixelRow]:
        """Pixels by `image_transform`, uint8 ([frames,] 3, height, width), and the row of one document.

        Raises:
            UnusableError: a picture that cannot be decoded, or a video of fewer frames than wanted.
        """
        video = next((segment for segment in document.segments if isinstance(segment, Video)), None)
        if video is None:
            return transformed(self.image_transform, document, random), self.text_row(document, random)
        wanted = len(video.frames) if self.frames is None else self.frames
        if len(video.frames) < wanted:
            raise UnusableError("too few frames", document.key)
        first = random.randint(0, len(video.frames) - wanted)
        frames = video.frames[first : first + wanted]
        pixels = transformed_clip(self.image_transform, frames, document, random)
        return pixels, self.text_row(document, random)

    def text_row(self, document: Document, random: Random) -> PixelRow:
        """The row of a document whose pixels come from elsewhere."""
        return PixelRow(document.key)

    def batch(self, pixels: Tensor, rows: Sequence[PixelRow], generator: torch.Generator) -> PixelBatch:
        """The batch of some rows.

        Args:
            pixels: uint8 (batch, [frames,] 3 or 4, height, width).
            rows: one for each.
            generator: randomness of the augmentation.
        """
        made = finished(pixels.flatten(0, -4), self.augment, self.processor.transform, generator)
        return PixelBatch(made.unflatten(0, pixels.shape[:-3]), [row.key for row in rows])


@DATASETS.register_module(name="pixel_data")
def pixel_data(
    processor: ImageProcessor,
    train: Any,
    batch_size: int,
    image_transform: PictureTransform | None,
    augment: Sequence[BatchTransform],
    order: Order,
    validation: Any = None,
    frames: int | None = None,
    workers: int = 0,
    seed: int = 0,
) -> ImageTextData:
    """A LightningDataModule that gives batches of pictures or clips, as resumable as `image_text_data`.

    Args:
        processor: the model's image transform.
        train: reader of training pictures or videos, with or without texts, or a mixture of such.
        batch_size: pictures or clips in a batch, for each rank.
        image_transform: one training picture to uint8 of fixed size; None takes pixels as a reader holds them.
        augment: transforms of whole training batches, in order.
        order: order of the training samples; readers of shards have their own.
        validation: reader of pictures seen in order, without augmentation: squares whose side is that of
            `image_transform`, or what the model's own transform makes of them, which must be of one size.
        frames: of a training clip; None takes all that the reader gives.
        workers: processes that read; 0 reads in this one.
        seed: of order, crops and augmentation.

    Raises:
        ValueError: a batch size or a number of frames below 1.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.datamodule import ImageTextData

    for name, value in (("batch_size", batch_size), ("frames", 1 if frames is None else frames)):
        if value < 1:
            raise ValueError(f"data.{name} is {value}; it must be at least 1")
    return ImageTextData(
        train=train,
        validation=validation,
        collate=PixelCollate(processor, image_transform, augment, frames),
        plain=PixelCollate(processor, _plain(processor, image_transform), [], frames),
        order=order,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )


def _plain(processor: ImageProcessor, image_transform: PictureTransform | None) -> PictureTransform:
    """What validation pictures become: the middle in the training's size, or what the model's own transform gives."""
    transform = processor.transform
    size = getattr(image_transform, "size", None)
    if size is not None:
        return FixedCrop(int(size), background=transform.background)
    return undrawn(transform)
