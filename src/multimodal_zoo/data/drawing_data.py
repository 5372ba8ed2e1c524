"""Pictures to draw, for the visual decoder's training: their collation, and the data module `drawing_data`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.data.captions import CaptionSampler
from multimodal_zoo.data.collate import PictureTransform
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.order import Order
from multimodal_zoo.data.pictures import load, open_picture, ready_to_resize, to_rgb
from multimodal_zoo.data.sequence_collate import no_pixels
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.transforms import INTERPOLATIONS, to_tensor
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.objectives.drawing_batch import DrawingBatch
from multimodal_zoo.registry import DATASETS

if TYPE_CHECKING:
    from multimodal_zoo.data.datamodule import ImageTextData


class DrawingRow(NamedTuple):
    """One picture before batching.

    Attributes:
        target: uint8 (3, size, size), the part that is drawn.
        seen: uint8 (3, side, side), the same part as the image encoder reads it.
        framing: six numbers, see `DrawingBatch`.
        seed: of all that is drawn by chance for it.
        key: its name.
        prompt: ids of its text; None where no text is asked for.
    """

    target: Tensor
    seen: Tensor
    framing: list[int]
    seed: int
    key: str
    prompt: Tensor | None


class DrawingCollate:
    """Turns documents into rows, and rows into a batch.

    Args:
        processor: the model's.
        size: side of what is drawn, pixels.
        scales: smallest and largest side of the resized picture's shorter edge, in multiples of `size`; one of them is
            drawn, aspect kept, and a random square of it is drawn. Equal numbers draw no scale.
        smallest: pictures with a shorter edge below this are left out, pixels.
        captions: chooses the text to imagine a picture from; None asks for none.
        centred: takes the middle in place of a random square, and the smallest scale.

    Raises:
        ValueError: sizes or scales below 1.
    """

    def __init__(
        self,
        processor: EmuProcessor,
        size: int,
        scales: Sequence[float],
        smallest: int,
        captions: CaptionSampler | None,
        centred: bool = False,
    ) -> None:
        if size < 1 or len(scales) != 2 or not 1 <= scales[0] <= scales[1]:
            raise ValueError(
                f"data.size is {size} and data.scales {list(scales)}; expected pixels, and a smallest and a largest "
                "multiple of at least 1"
            )
        self.image_transform: PictureTransform | None = no_pixels
        self.processor, self.size, self.scales = processor, size, (float(scales[0]), float(scales[1]))
        self.smallest, self.captions, self.centred = smallest, captions, centred

    def row(self, document: Document, random: Random) -> tuple[Tensor, DrawingRow]:
        """No pixels (the row has them), and the row of one document; raises as `text_row`."""
        return no_pixels(document, random), self.text_row(document, random)

    def text_row(self, document: Document, random: Random) -> DrawingRow:
        """The row of one document.

        Raises:
            UnusableError: no picture, one that cannot be decoded, or one that is too small.
        """
        transform = self._transform
        try:
            opened = load(open_picture(document.image, document.key), document.key)
        except ValueError as error:
            raise UnusableError("missing image", document.key) from error
        if min(opened.size) < self.smallest:
            raise UnusableError(f"shorter edge below {self.smallest} pixels", f"{document.key} {opened.size}")
        picture = ready_to_resize(opened, transform.background)
        scale = self.scales[0] if self.centred else random.uniform(*self.scales)
        short = min(picture.size)
        wide, high = (max(self.size, round(self.size * scale * side / short)) for side in picture.size)
        free = wide - self.size, high - self.size
        left, top = (one // 2 if self.centred else random.randint(0, one) for one in free)
        resized = picture.resize((wide, high), INTERPOLATIONS[transform.interpolation])
        part = to_rgb(resized.crop((left, top, left + self.size, top + self.size)), transform.background)
        framing = [opened.height, opened.width, top, left, self.size, self.size]
        seed = random.getrandbits(62)
        seen = transform.pixels(part)
        return DrawingRow(to_tensor(part), seen, framing, seed, document.key, self._prompt(document, random))

    def check(self, document: Document) -> None:
        """Find out whether a document is usable: what one process leaves out, the others must leave out too.

        Raises:
            UnusableError: it is not.
        """
        self.text_row(document, Random(0))

    @property
    def _transform(self) -> Any:
        if self.processor.transform is None:
            raise ValueError("the model reads words only (model.processor.images is null): it draws nothing")
        return self.processor.transform

    def _prompt(self, document: Document, random: Random) -> Tensor | None:
        if self.captions is None:
            return None
        told = Document([Text(self.captions(document, random))], document.meta)
        return self.processor.drawing_prompt(told, special=False).ids

    def batch(self, pixels: Tensor, rows: Sequence[DrawingRow], generator: torch.Generator) -> DrawingBatch:
        """The batch of some rows; `pixels` are empty, nothing is drawn here."""
        texts = [row.prompt for row in rows if row.prompt is not None]
        seen = self._transform.normalise(torch.stack([row.seen for row in rows]))
        return DrawingBatch(
            targets=torch.stack([row.target for row in rows]).float().div_(127.5).sub_(1),
            framings=torch.tensor([row.framing for row in rows]),
            seeds=torch.tensor([row.seed for row in rows]),
            seen=CountedImages(seen, (self.processor.image_tokens,) * len(rows)),
            keys=[row.key for row in rows],
            prompts=texts,
            empty=self.processor.drawing_prompt(Document([])).ids if texts else None,
        )


@DATASETS.register_module(name="drawing_data")
def drawing_data(
    processor: EmuProcessor,
    train: Any,
    batch_size: int,
    size: int,
    scales: Sequence[float],
    smallest: int,
    order: Order,
    captions: CaptionSampler | None = None,
    validation: Any = None,
    workers: int = 0,
    seed: int = 0,
) -> ImageTextData:
    """A LightningDataModule that gives pictures to draw (`DrawingBatch`), as resumable as `image_text_data`.

    Published for Emu2: a random scale that keeps the aspect, a random square, 448 pixels read and 1,024 drawn
    (arXiv 2312.13286, supplement).

    Args:
        processor: the model's.
        train: reader of training pictures, with or without texts, or a mixture of such.
        batch_size: pictures in a batch, for each rank.
        size: side of what is drawn, pixels.
        scales: smallest and largest shorter edge of the resized picture, in multiples of `size`.
        smallest: pictures with a shorter edge below this are left out, pixels.
        order: order of the training samples; readers of shards have their own.
        captions: chooses the text to imagine a picture from; None asks for none.
        validation: reader of pictures seen in order: their middle, at the smallest scale.
        workers: processes that read; 0 reads in this one.
        seed: of order, scales, squares, noise.

    Raises:
        ValueError: a batch size below 1, or sizes that make no picture.
    """
    # Imported here: models need this room for their processor, and Lightning takes seconds to import.
    from multimodal_zoo.data.datamodule import ImageTextData

    rest = (processor, size, scales, smallest, captions)
    return ImageTextData(
        train=train,
        validation=validation,
        collate=DrawingCollate(*rest),
        plain=DrawingCollate(*rest, centred=True),
        order=order,
        batch_size=batch_size,
        workers=workers,
        seed=seed,
    )
