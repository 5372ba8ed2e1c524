"""Images alone with masked patches: their collation, and the data module as a part, `masked_image_data`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.collate import BatchTransform, PictureTransform, finished, transformed, undrawn
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.masking import Masking
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.processor import ImageProcessor
from multimodal_zoo.objectives.batch import MaskedImageBatch
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.datamodule import ImageTextData


class MaskedRow(NamedTuple):
    """One image before batching, without its pixels."""

    mask: Tensor
    key: str


class MaskedImageCollate:
    """Turns documents into rows and rows into a batch; texts are not looked at.

    Args:
        processor: gives the normalisation.
        masking: chooses the hidden patches of one image.
        image_transform: one picture to uint8 of fixed size; None where readers hold their pixels in memory.
        augment: transforms of whole batches, applied in order.
    """

    def __init__(
        self,
        processor: ImageProcessor,
        masking: Masking,
        image_transform: PictureTransform | None,
        augment: Sequence[BatchTransform],
    ) -> None:
        self.processor = processor
        self.masking = masking
        self.image_transform = image_transform
        self.augment = list(augment)

    def row(self, document: Document, random: Random) -> tuple[Tensor, MaskedRow]:
        """Pixels by `image_transform`, uint8 (3, height, width), and the row of one document.

        Raises:
            UnusableError: the picture cannot be decoded.
        """
        pixels = transformed(self.image_transform, document, random)
        return pixels, self.text_row(document, random)

    def text_row(self, document: Document, random: Random) -> MaskedRow:
        """The row of a document whose pixels come from elsewhere."""
        return MaskedRow(self.masking(random), document.key)

    def batch(self, pixels: Tensor, rows: Sequence[MaskedRow], generator: torch.Generator) -> MaskedImageBatch:
        """The batch of some rows.

        Args:
            pixels: uint8 (batch, 3 or 4, height, width).
            rows: one for each picture.
            generator: randomness of the augmentation.
        """
        images = finished(pixels, self.augment, self.processor.transform, generator)
        return MaskedImageBatch(images, torch.stack([row.mask for row in rows]), [row.key for row in rows])


@DATASETS.register_module(name="masked_image_data")
def masked_image_data(
    processor: ImageProcessor,
    train: Any,
    batch_size: int,
    masking: Masking,
    image_transform: PictureTransform | None,
    augment: Sequence[BatchTransform],
    order: Order,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> ImageTextData:
    """A LightningDataModule that gives batches of images with masked patches, as resumable as `image_text_data`.

    Args:
        processor: the model's image transform.
        train: reader of training images, with or without texts.
        batch_size: images in a batch, for each rank.
        masking: chooses the hidden patches of an image, in training and validation.
        image_transform: one training picture to uint8 of fixed size; None takes pixels as a reader holds them.
        augment: transforms of whole training batches, in order.
        order: order of the training samples; readers of shards have their own.
        validation: reader of images seen in order, by the model's own transform.
        workers: processes that read; 0 reads in this one.
        seed: of order, masks, crops and augmentation.

    Raises:
        ValueError: a batch size below 1.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.datamodule import ImageTextData

    return ImageTextData(
        train=train,
        validation=validation,
        collate=MaskedImageCollate(processor, masking, image_transform, augment),
        plain=MaskedImageCollate(processor, masking, undrawn(processor.transform), []),
        order=order,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
