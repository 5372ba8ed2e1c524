"""From documents to an `ImageTextBatch`: pixels and ids row by row, then augmentation of the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from random import Random
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.documents import Document, Image, Picture
from multimodal_zoo.data.processor import ImageTextProcessor, pad_ids
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.objectives.batch import ImageTextBatch

#: uint8 (3 or 4, height, width) from one picture; the same size for every picture.
PictureTransform = Callable[[Picture, Random], Tensor]


class BatchTransform(Protocol):
    """Changes pictures (batch, 3 or 4, height, width), float, 0 to 1, colour premultiplied by alpha."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The changed batch."""
        ...


class Collate(Protocol):
    """Documents to rows, rows to a batch: what loaders ask of `PairCollate` and its like."""

    image_transform: PictureTransform | None

    def row(self, document: Document, random: Random) -> tuple[Tensor, Any]:
        """Pixels of one document, uint8 (3, height, width), and everything else about it."""
        ...

    def text_row(self, document: Document, random: Random) -> Any:
        """Everything else about a document whose pixels come from elsewhere."""
        ...

    def batch(self, pixels: Tensor, rows: Sequence[Any], generator: torch.Generator) -> Any:
        """The batch of some rows."""
        ...


class Row(NamedTuple):
    """One pair before batching, without its pixels; `concept` is -1 where the reader knows none."""

    ids: list[int]
    key: str
    concept: int


def premultiplied(pixels: Tensor) -> Tensor:
    """Float, 0 to 1, from uint8 (batch, 3 or 4, height, width); colour is multiplied by alpha if there is one."""
    images = pixels.float().div_(255)
    if images.shape[1] == 4:
        images[:, :3] *= images[:, 3:]
    return images


def stack(pixels: Sequence[Tensor]) -> Tensor:
    """Pictures as one tensor.

    Raises:
        ValueError: they differ in size.
    """
    shapes = {tuple(one.shape) for one in pixels}
    if len(shapes) > 1:
        raise ValueError(f"data.image_transform gave pictures of different sizes: {sorted(shapes)}")
    return torch.stack(list(pixels))


def transformed(image_transform: PictureTransform | None, document: Document, random: Random) -> Tensor:
    """Pixels of a document, uint8 (3, height, width).

    Raises:
        UnusableError: the picture cannot be decoded.
        ValueError: there is no image transform.
    """
    if image_transform is None:
        raise ValueError("data.image_transform is null, which needs a data set that holds its pixels in memory")
    try:
        return image_transform(document.image, random)
    except UnusableError as error:  # the transform cannot know the sample's name
        raise UnusableError(error.reason, document.key) from error


def undrawn(transform: Any) -> PictureTransform:
    """A model's own image transform in place of one that draws: what pictures of validation become.

    Args:
        transform: has `pixels`, one picture to uint8 (3, height, width).
    """
    return lambda picture, random: transform.pixels(picture)


def transformed_clip(
    image_transform: PictureTransform | None, frames: Sequence[Picture], document: Document, random: Random
) -> Tensor:
    """Pixels of a clip's frames, all with the same crop: uint8 (frames, 3, height, width); raises as `transformed`."""
    state, pixels = random.getstate(), []
    for frame in frames:
        random.setstate(state)
        pixels.append(transformed(image_transform, Document([Image(frame)], document.meta), random))
    return stack(pixels)


def finished(
    pixels: Tensor, augment: Sequence[BatchTransform], transform: ImageTransform, generator: torch.Generator
) -> Tensor:
    """Normalised float (batch, 3, height, width): augmented, what is left of alpha on white.

    Args:
        pixels: uint8 (batch, 3 or 4, height, width).
        augment: transforms of the whole batch, in order.
        transform: gives the normalisation.
        generator: randomness of the augmentation.
    """
    if not augment and pixels.shape[1] == 3:
        return transform.normalise(pixels)
    images = premultiplied(pixels)
    for part in augment:
        images = part(images, generator)
    if images.shape[1] == 4:
        images = images[:, :3] + (1 - images[:, 3:])
    mean, std = transform.mean.view(3, 1, 1), transform.std.view(3, 1, 1)
    return images.clamp(0, 1).sub_(mean).div_(std)


def concept_of(document: Document) -> int:
    """The document's concept; -1 where its reader knows none."""
    concept = document.meta.get("concept", -1)  # files from outside may say anything under this name
    known = isinstance(concept, Integral) and abs(int(concept)) < 2**63  # numpy's integers are Integral, not int
    return int(concept) if known else -1


def concepts_of(numbers: Sequence[int]) -> Tensor | None:
    """Concepts of a batch, long (batch,); None if none is known."""
    concepts = torch.tensor(numbers)
    return None if bool((concepts < 0).all()) else concepts


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

    def row(self, document: Document, random: Random) -> tuple[Tensor, Row]:
        """Pixels by `image_transform`, uint8 (3, height, width), and the row of one document.

        Raises:
            UnusableError: the picture cannot be decoded.
        """
        pixels = transformed(self.image_transform, document, random)
        return pixels, self.text_row(document, random)

    def text_row(self, document: Document, random: Random) -> Row:
        """The row of a document whose pixels come from elsewhere."""
        ids = self.processor.tokenizer.encode([self.captions(document, random)])[0]
        return Row(ids, document.key, concept_of(document))

    def batch(self, pixels: Tensor, rows: Sequence[Row], generator: torch.Generator) -> ImageTextBatch:
        """The batch of some rows.

        Args:
            pixels: uint8 (batch, 3 or 4, height, width).
            rows: one for each picture.
            generator: randomness of the augmentation.
        """
        return ImageTextBatch(
            images=self.finish(pixels, generator),
            ids=pad_ids([row.ids for row in rows], self.processor.tokenizer.pad_id),
            keys=[row.key for row in rows],
            concepts=concepts_of([row.concept for row in rows]),
        )

    def finish(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Normalised float (batch, 3, height, width): augmented, what is left of alpha on white."""
        return finished(pixels, self.augment, self.processor.transform, generator)
