"""Image-text pairs in several views of each side: their collation, and the data module as a part, `multi_view_data`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.captions import CaptionSampler, TextCaption
from multimodal_zoo.data.collate import (
    BatchTransform,
    PictureTransform,
    concept_of,
    concepts_of,
    finished,
    transformed,
)
from multimodal_zoo.data.documents import Document, Picture
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.pictures import load, open_picture
from multimodal_zoo.data.processor import ImageTextProcessor, pad_ids
from multimodal_zoo.data.text_views import IGNORED, Caption, TextView, Words
from multimodal_zoo.objectives.batch import MultiViewBatch
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.datamodule import ImageTextData


@DATASETS.register_module(name="image_view")
class ImageView:
    """How one view of a picture is made.

    Args:
        transform: one picture to uint8 of fixed size; None where readers hold their pixels in memory.
        augment: transforms of whole batches, applied in order.
    """

    def __init__(self, transform: PictureTransform | None, augment: Sequence[BatchTransform] = ()) -> None:
        self.transform = transform
        self.augment = list(augment)


class MultiViewRow(NamedTuple):
    """One pair before batching, without its pixels: the words of each text view."""

    words: tuple[Words, ...]
    key: str
    concept: int


class MultiViewCollate:
    """Turns documents into rows and rows into a batch; every view of a text derives from one caption.

    Args:
        processor: gives the tokenizer and the normalisation.
        captions: chooses the text.
        image_views: views of the picture by name; all of them transform pictures or none does.
        text_views: views of the text by name.

    Raises:
        ValueError: no view of a side, image views of both kinds, or a tokenizer that a text view cannot use.
    """

    def __init__(
        self,
        processor: ImageTextProcessor,
        captions: CaptionSampler,
        image_views: Mapping[str, ImageView],
        text_views: Mapping[str, TextView],
    ) -> None:
        for side, views in (("image_views", image_views), ("text_views", text_views)):
            if not views:
                raise ValueError(f"data.{side} is empty; name at least one view")
        for view in text_views.values():
            view.check(processor.tokenizer)
        self.processor = processor
        self.captions = captions
        self.image_views = dict(image_views)
        self.text_views = dict(text_views)
        self._transforms = [view.transform for view in image_views.values() if view.transform is not None]
        if len(self._transforms) not in (0, len(image_views)):
            without = [name for name, view in image_views.items() if view.transform is None]
            raise ValueError(
                f"data.image_views: {', '.join(without)} have no transform and the others have one; readers either "
                "give pictures, so that every view needs a transform, or hold their pixels in memory, so that none has"
            )
        #: what loaders ask for: all views of one picture, uint8, one after the other on the channel axis
        self.image_transform: PictureTransform | None = self.pictures if self._transforms else None

    def pictures(self, image: Picture, random: Random) -> Tensor:
        """All views of one picture, which is decoded once: uint8 (3 * views, height, width).

        Raises:
            UnusableError: the picture cannot be decoded.
            ValueError: the views differ in size.
        """
        # One view alone may decode a JPEG at reduced size; several need all of it.
        opened = image if len(self._transforms) == 1 else load(open_picture(image))
        views = [transform(opened, random) for transform in self._transforms]
        if len({view.shape for view in views}) > 1:
            sizes = {name: tuple(view.shape) for name, view in zip(self.image_views, views, strict=True)}
            raise ValueError(f"data.image_views gave pictures of different sizes: {sizes}")
        return torch.cat(views)

    def row(self, document: Document, random: Random) -> tuple[Tensor, MultiViewRow]:
        """All views of the picture, uint8 (3 * views, height, width), and the row of one document.

        Raises:
            UnusableError: the picture cannot be decoded.
        """
        pixels = transformed(self.image_transform, document, random)
        return pixels, self.text_row(document, random)

    def text_row(self, document: Document, random: Random) -> MultiViewRow:
        """The row of a document whose pixels come from elsewhere."""
        caption = Caption(self.captions(document, random), self.processor.tokenizer)
        words = tuple(view(caption, random) for view in self.text_views.values())
        return MultiViewRow(words, document.key, concept_of(document))

    def batch(self, pixels: Tensor, rows: Sequence[MultiViewRow], generator: torch.Generator) -> MultiViewBatch:
        """The batch of some rows.

        Args:
            pixels: uint8 (batch, 3 * views, height, width); without transforms (batch, 3 or 4, height, width), from
                which every view is made.
            rows: one for each picture.
            generator: randomness of the augmentation.
        """
        count = len(self.image_views)
        parts = pixels.chunk(count, 1) if self._transforms else [pixels] * count
        texts, labels = self._texts(rows)
        return MultiViewBatch(
            images={
                name: finished(part, view.augment, self.processor.transform, generator)
                for (name, view), part in zip(self.image_views.items(), parts, strict=True)
            },
            texts=texts,
            labels=labels,
            keys=[row.key for row in rows],
            concepts=concepts_of([row.concept for row in rows]),
        )

    def _texts(self, rows: Sequence[MultiViewRow]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        texts, labels = {}, {}
        for number, name in enumerate(self.text_views):
            words = [row.words[number] for row in rows]
            texts[name] = pad_ids([one.ids for one in words], self.processor.tokenizer.pad_id)
            masked = [one.labels for one in words if one.labels is not None]
            if masked:
                labels[name] = pad_ids(masked, IGNORED)
        return texts, labels


@DATASETS.register_module(name="multi_view_data")
def multi_view_data(
    processor: ImageTextProcessor,
    train: Any,
    batch_size: int,
    captions: CaptionSampler,
    image_views: Mapping[str, ImageView],
    text_views: Mapping[str, TextView],
    order: Order,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> ImageTextData:
    """A LightningDataModule that gives batches of several views of each pair, as resumable as `image_text_data`.

    Validation batches hold the same views, the same ones each time, so that an objective that needs them can be
    computed; their captions are the documents' own.

    Args:
        processor: the model's image transform and tokenizer.
        train: reader of training pairs.
        batch_size: pairs in a batch, for each rank.
        captions: chooses the text of a training pair, from which every text view is made.
        image_views: views of the picture by name (`image_view`); only these are computed.
        text_views: views of the text by name (`plain_text`, `masked_text`, `augmented_text`).
        order: order of the training samples; readers of shards have their own.
        validation: reader of pairs seen in order.
        workers: processes that read; 0 reads in this one.
        seed: of order, captions, crops, augmentation and masked words.

    Raises:
        ValueError: a batch size below 1, no view of a side, or views that fit neither each other nor the tokenizer.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.datamodule import ImageTextData

    return ImageTextData(
        train=train,
        validation=validation,
        collate=MultiViewCollate(processor, captions, image_views, text_views),
        plain=MultiViewCollate(processor, TextCaption(), image_views, text_views),
        order=order,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
