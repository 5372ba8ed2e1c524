"""What a picture is drawn from while the visual decoder learns: its own embeddings, or imagined ones."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.objectives.drawing_batch import DrawingBatch
from multimodal_zoo.registry import OBJECTIVES


class DrawnFrom(Protocol):
    """Visual embeddings of pictures."""

    def check(self, model: Any) -> None:
        """Refuse a model that does not give them."""
        ...

    def __call__(self, model: Any, batch: DrawingBatch) -> Tensor:
        """Embeddings of the batch, (rows, tokens, width)."""
        ...

    def nothing(self, model: Any, batch: DrawingBatch) -> Tensor:
        """Embeddings of no picture, (1, tokens, width): what guidance leads away from when drawing."""
        ...


@OBJECTIVES.register_module(name="encoded_pictures")
class EncodedPictures:
    """The embeddings of the picture itself, without the language model (Emu2, arXiv 2312.13286).

    Encoder and decoder become an autoencoder; no picture is a picture of zeros, as the published pipeline has it.
    """

    def check(self, model: Any) -> None:
        """Any model with an image encoder will do."""
        if not hasattr(model, "encode"):
            raise ValueError(f"objective.drawn_from needs a model that encodes pictures, not {type(model).__name__}")

    def __call__(self, model: Any, batch: DrawingBatch) -> Tensor:
        """See `DrawnFrom`."""
        return _rows(model, batch.seen)

    def nothing(self, model: Any, batch: DrawingBatch) -> Tensor:
        """See `DrawnFrom`."""
        return _rows(model, CountedImages(torch.zeros_like(batch.seen.pixels[:1]), batch.seen.counts[:1]))


@OBJECTIVES.register_module(name="imagined_pictures")
class ImaginedPictures:
    """The embeddings that the frozen model imagines behind the picture's text, one after another, in every step (Emu).

    No picture is what it imagines behind no text.
    """

    def check(self, model: Any) -> None:
        """Refuse a model without a language model.

        Raises:
            ValueError: with the choice that fits.
        """
        if not hasattr(model, "imagine"):
            raise ValueError(
                f"objective.drawn_from imagines pictures, which {type(model).__name__} cannot: choose a model with a "
                "decoder, or objective.drawn_from.type=encoded_pictures"
            )

    def __call__(self, model: Any, batch: DrawingBatch) -> Tensor:
        """See `DrawnFrom`.

        Raises:
            ValueError: a batch without texts.
        """
        if not batch.prompts:
            raise ValueError("the data give no texts to imagine pictures from: set data.captions to a caption sampler")
        return self._imagined(model, batch.prompts, batch)

    def nothing(self, model: Any, batch: DrawingBatch) -> Tensor:
        """See `DrawnFrom`."""
        if batch.empty is None:
            raise ValueError("the data give no texts to imagine pictures from: set data.captions to a caption sampler")
        return self._imagined(model, [batch.empty], batch)

    @staticmethod
    def _imagined(model: Any, rows: list[Tensor], batch: DrawingBatch) -> Tensor:
        nowhere = [torch.zeros(len(row), dtype=torch.bool) for row in rows]
        found: Tensor = model.imagine(model.prompts(rows, nowhere, None, 0), batch.seen.counts[0])
        return found


def _rows(model: Any, images: CountedImages) -> Tensor:
    found: Tensor = model.encode(images)
    return found.unflatten(0, (len(images), -1))
