"""From documents to an `ImageTextBatch`: pixels and ids row by row, then augmentation of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.documents import Document, Picture
from multimodal_zoo.data.processor import ImageTextProcessor, pad_ids
from multimodal_zoo.objectives.batch import ImageTextBatch

#: uint8 (3 or 4, height, width) from one picture; the same size for every picture.
PictureTransform = Callable[[Picture, Random], Tensor]


class BatchTransform(Protocol):
    """Changes pictures (batch, 3 or 4, height, width), float, 0 to 1, colour premultiplied by alpha."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The changed batch."""
        ...


class Row(NamedTuple):
    """One pair before batching; `concept` is -1 where the reader knows none."""

    pixels: Tensor
    ids: list[int]
    key: str
    concept: int


def premultiplied(pixels: Tensor) -> Tensor:
    """Float, 0 to 1, from uint8 (batch, 3 or 4, height, width); colour is multiplied by alpha if there is one."""
    images = pixels.float().div_(255)
    if images.shape[1] == 4:
        images[:, :3] *= images[:, 3:]
    return images


class PairCollate:
    """Turns documents into rows and rows into a batch.

    Args:
        processor: gives the tokenizer and the normalisation.
        captions: chooses the text.
        image_transform: one picture to uint8 of fixed size; None where readers hold their pixels in memory.
        augment: transforms of whole batches, applied in order.
    """

    def __init__(
        self,
        processor: ImageTextProcessor,
        captions: CaptionSampler,
        image_transform: PictureTransform | None,
        augment: Sequence[BatchTransform],
    ) -> None:
        self.processor = processor
        self.captions = captions
        self.image_transform = image_transform
        self.augment = list(augment)

    def row(self, document: Document, random: Random) -> Row:
        """One row, with pixels by `image_transform`."""
        if self.image_transform is None:
            raise ValueError("data.image_transform is null, which needs a data set that holds its pixels in memory")
        return self._row(document, self.image_transform(document.image, random), random)

    def _row(self, document: Document, pixels: Tensor, random: Random) -> Row:
        ids = self.processor.tokenizer.encode([self.captions(document, random)])[0]
        return Row(pixels, ids, document.key, int(document.meta.get("concept", -1)))

    def stored_rows(self, documents: Sequence[Document], pixels: Tensor, randoms: Sequence[Random]) -> list[Row]:
        """Rows of documents whose pixels were fetched at once."""
        return [self._row(d, p, r) for d, p, r in zip(documents, pixels, randoms, strict=True)]

    def batch(self, rows: Sequence[Row], generator: torch.Generator, pixels: Tensor | None = None) -> ImageTextBatch:
        """The batch of some rows.

        Args:
            rows: at least one.
            generator: randomness of the augmentation.
            pixels: the rows' pixels where they are stacked already.

        Raises:
            ValueError: the pictures differ in size.
        """
        if pixels is None:
            shapes = {tuple(row.pixels.shape) for row in rows}
            if len(shapes) > 1:
                raise ValueError(f"data.image_transform gave pictures of different sizes: {sorted(shapes)}")
            pixels = torch.stack([row.pixels for row in rows])
        concepts = torch.tensor([row.concept for row in rows])
        return ImageTextBatch(
            images=self.finish(pixels, generator),
            ids=pad_ids([row.ids for row in rows], self.processor.tokenizer.pad_id),
            keys=[row.key for row in rows],
            concepts=None if bool((concepts < 0).all()) else concepts,
        )

    def finish(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Normalised float (batch, 3, height, width): augmented, what is left of alpha on white."""
        transform = self.processor.transform
        if not self.augment and pixels.shape[1] == 3:
            return transform.normalise(pixels)
        images = premultiplied(pixels)
        for part in self.augment:
            images = part(images, generator)
        if images.shape[1] == 4:
            images = images[:, :3] + (1 - images[:, 3:])
        mean, std = transform.mean.view(3, 1, 1), transform.std.view(3, 1, 1)
        return images.clamp(0, 1).sub_(mean).div_(std)
