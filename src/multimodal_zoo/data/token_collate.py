"""Documents to token samples and samples to batches: what the loaders ask for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from multimodal_zoo.data.collate import PictureTransform
from multimodal_zoo.data.documents import Document, Picture
from multimodal_zoo.data.emu3_processor import Emu3Processor
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.token_batches import padded_batch
from multimodal_zoo.data.token_sequences import Layout, TokenSample, TokenWeights
from multimodal_zoo.objectives.batch import TokenBatch

#: What happens to a document that is longer than the context: it stops training, or it is counted and left out.
TOO_LONG = ("error", "skip")


def no_pixels(picture: Picture, random: Random) -> Tensor:
    """What loaders carry in place of pixels: pictures of these documents are codes already."""
    return torch.empty(0, dtype=torch.uint8)


class TokenCollate:
    """Turns documents into token samples, and samples into a batch with one in each row.

    Args:
        processor: the model's.
        layout: how a document becomes a sequence.
        weights: what counts in the loss.
        context_length: most tokens of a document. Nothing is ever cut off: half a picture is no picture.
        too_long: a name of `TOO_LONG`.

    Raises:
        ValueError: an unknown choice, or a context below two tokens.
    """

    def __init__(
        self, processor: Emu3Processor, layout: Layout, weights: TokenWeights, context_length: int, too_long: str
    ) -> None:
        if too_long not in TOO_LONG:
            raise ValueError(f"data.batching.too_long is {too_long!r}; it must be one of {', '.join(TOO_LONG)}")
        if context_length < 2:
            raise ValueError(f"data.batching.context_length is {context_length}; a prediction takes 2 tokens")
        self.image_transform: PictureTransform | None = no_pixels
        self.processor, self.layout, self.weights = processor, layout, weights
        self.context_length, self.too_long = context_length, too_long

    def row(self, document: Document, random: Random) -> tuple[Tensor, TokenSample]:
        """No pixels, and the sample of one document.

        Raises:
            ValueError: it is too long, where that is an error, or the layout cannot take it.
            UnusableError: it is too long, where it is left out.
        """
        return no_pixels(document, random), self.text_row(document, random)  # type: ignore[arg-type]

    def text_row(self, document: Document, random: Random) -> TokenSample:
        """The sample of one document."""
        sample = self.weights(self.layout(document, self.processor, random), self.processor.ids, document.key)
        if len(sample.ids) > self.context_length:
            if self.too_long == "skip":
                raise UnusableError(f"longer than {self.context_length} tokens", document.key)
            raise ValueError(
                f"document {document.key!r} has {len(sample.ids)} tokens; data.batching.context_length is "
                f"{self.context_length}: raise it, or set data.batching.too_long=skip"
            )
        return sample

    def check(self, document: Document) -> None:
        """Find out whether a document is usable.

        Raises:
            UnusableError: it is not.
        """
        self.text_row(document, Random(0))

    def batch(self, pixels: Tensor, rows: Sequence[TokenSample], generator: torch.Generator) -> TokenBatch:
        """The batch of some samples; `pixels` are empty, nothing is drawn."""
        return padded_batch(rows, self.processor.ids.pad)


class SampleCollate(TokenCollate):
    """As `TokenCollate`, but samples stay samples: for loaders that put them into rows themselves."""

    def batch(  # type: ignore[override]
        self, pixels: Tensor, rows: Sequence[TokenSample], generator: torch.Generator
    ) -> list[TokenSample]:
        """The samples as they are."""
        return list(rows)
