"""The data module of image-text training, as a part: `image_text_data`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from multimodal_zoo.data.captions import CaptionSampler, TextCaption
from multimodal_zoo.data.collate import BatchTransform, PairCollate, PictureTransform, undrawn
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.processor import ImageTextProcessor
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.datamodule import ImageTextData


@DATASETS.register_module(name="image_text_data")
def image_text_data(
    processor: ImageTextProcessor,
    train: Any,
    batch_size: int,
    captions: CaptionSampler,
    image_transform: PictureTransform | None,
    augment: Sequence[BatchTransform],
    order: Order,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> ImageTextData:
    """A LightningDataModule that gives batches of image-text pairs.

    All randomness is a pure function of (seed, epoch, number), so that the worker count changes nothing, and a
    checkpoint holds the number of batches that the trainer took, so that a resumed run sees exactly the batches that an
    uninterrupted one sees.

    Args:
        processor: the model's image transform and tokenizer.
        train: reader of training pairs.
        batch_size: pairs in a batch, for each rank.
        captions: chooses the text of a training pair.
        image_transform: one training picture to uint8 of fixed size; None takes pixels as a reader holds them.
        augment: transforms of whole training batches, in order.
        order: order of the training samples; readers of shards have their own.
        validation: reader of pairs seen in order, by the model's own transform and with their own text.
        workers: processes that read; 0 reads in this one.
        seed: of order, captions, crops and augmentation.

    Raises:
        ValueError: a batch size below 1.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.datamodule import ImageTextData

    return ImageTextData(
        train=train,
        validation=validation,
        collate=PairCollate(processor, captions, image_transform, augment),
        plain=PairCollate(processor, TextCaption(), undrawn(processor.transform), []),
        order=order,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
