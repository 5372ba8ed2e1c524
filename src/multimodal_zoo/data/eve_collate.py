"""Documents to samples with pictures, and samples to batches: what the loaders ask for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from multimodal_zoo.data.collate import PictureTransform
from multimodal_zoo.data.conversation_layouts import ConversationLayout
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.eve_processor import EveProcessor
from multimodal_zoo.data.picture_batches import picture_rows_batch
from multimodal_zoo.data.picture_sequences import PictureSample, shortened
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.token_collate import no_pixels
from multimodal_zoo.objectives.batch import PictureTokenBatch

#: What happens to a document that is longer than the context: it stops training, is counted and left out, loses its
#: end, or loses it as published: there a picture counts as one token, so that rows may be longer.
TOO_LONG = ("error", "skip", "cut", "cut_ids")


class PictureCollate:
    """Turns documents into samples with pictures, and samples into a batch with one in each row.

    Args:
        processor: the model's.
        layout: which conversation a document is.
        context_length: most tokens of a document, pictures' tokens counted.
        too_long: a name of `TOO_LONG`. No picture is ever cut: a document that would lose one is left out.
        teacher: whether what a teacher sees of the pictures is made too.

    Raises:
        ValueError: an unknown choice, or a context below two tokens.
    """

    def __init__(
        self,
        processor: EveProcessor,
        layout: ConversationLayout,
        context_length: int,
        too_long: str,
        teacher: bool,
    ) -> None:
        if too_long not in TOO_LONG:
            raise ValueError(f"data.batching.too_long is {too_long!r}; it must be one of {', '.join(TOO_LONG)}")
        if context_length < 2:
            raise ValueError(f"data.batching.context_length is {context_length}; a prediction takes 2 tokens")
        self.image_transform: PictureTransform | None = no_pixels
        self.processor, self.layout, self.teacher = processor, layout, teacher
        self.context_length, self.too_long = context_length, too_long

    def row(self, document: Document, random: Random) -> tuple[Tensor, PictureSample]:
        """No pixels (the sample has them), and the sample of one document; raises as `text_row`."""
        return no_pixels(document, random), self.text_row(document, random)  # type: ignore[arg-type]

    def text_row(self, document: Document, random: Random) -> PictureSample:
        """The sample of one document.

        Raises:
            ValueError: it is too long, where that is an error.
            UnusableError: it is too long otherwise, has no answer within the context, or is no conversation.
        """
        told = self.layout(document, random)
        sample = self._fitting(self.processor.sample(told, random, self.teacher, self.layout.special))
        if not sample.weights.any():
            raise UnusableError(f"no answer within {self.context_length} tokens", document.key)
        return sample

    def _fitting(self, sample: PictureSample) -> PictureSample:
        if self.too_long.startswith("cut"):
            return shortened(sample, self.context_length, "ids" if self.too_long == "cut_ids" else "tokens")
        tokens, pictures = len(sample.ids), int(sample.vision.sum())
        if tokens <= self.context_length:
            return sample
        if self.too_long == "skip":
            raise UnusableError(f"longer than {self.context_length} tokens", f"{sample.key} ({tokens} tokens)")
        raise ValueError(
            f"document {sample.key!r} has {tokens} tokens, {pictures} of them of pictures; "
            f"data.batching.context_length is {self.context_length}: raise it, or set too_long to cut or skip"
        )

    def check(self, document: Document) -> None:
        """Find out whether a document is usable.

        Raises:
            UnusableError: it is not.
        """
        self.text_row(document, Random(0))

    def batch(self, pixels: Tensor, rows: Sequence[PictureSample], generator: torch.Generator) -> PictureTokenBatch:
        """The batch of some samples; `pixels` are empty, nothing is drawn."""
        return picture_rows_batch([[row] for row in rows], self.processor.ids.pad)


class PictureSampleCollate(PictureCollate):
    """As `PictureCollate`, but samples stay samples: for loaders that put them into rows themselves."""

    def batch(  # type: ignore[override]
        self, pixels: Tensor, rows: Sequence[PictureSample], generator: torch.Generator
    ) -> list[PictureSample]:
        """The samples as they are."""
        return list(rows)
