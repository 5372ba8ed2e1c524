"""Documents to samples of words and visual embeddings, and samples to batches: what the loaders ask for."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from torch import Tensor

from multimodal_zoo.data.collate import PictureTransform
from multimodal_zoo.data.conversation_layouts import ConversationLayout
from multimodal_zoo.data.documents import Document
from multimodal_zoo.data.emu_processor import EmuProcessor
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.token_collate import no_pixels
from multimodal_zoo.data.visual_batches import visual_rows_batch
from multimodal_zoo.data.visual_sequences import LearntElements, VisualSample, shortened
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch

#: What happens to a document that is longer than the context: it stops training, is counted and left out, or loses its
#: end, with every picture that does not fit whole.
TOO_LONG = ("error", "skip", "cut")


class VisualCollate:
    """Turns documents into samples, and samples into a batch with one in each row.

    Args:
        processor: the model's.
        layout: what of a document is told, and in which order.
        learn: what of it is learnt.
        context_length: most tokens of a document, visual embeddings counted.
        too_long: a name of `TOO_LONG`.

    Raises:
        ValueError: an unknown choice, or a context below two tokens.
    """

    def __init__(
        self,
        processor: EmuProcessor,
        layout: ConversationLayout,
        learn: LearntElements,
        context_length: int,
        too_long: str,
    ) -> None:
        if too_long not in TOO_LONG:
            raise ValueError(f"data.batching.too_long is {too_long!r}; it must be one of {', '.join(TOO_LONG)}")
        if context_length < 2:
            raise ValueError(f"data.batching.context_length is {context_length}; a prediction takes 2 tokens")
        self.image_transform: PictureTransform | None = no_pixels
        self.processor, self.layout, self.learn = processor, layout, learn
        self.context_length, self.too_long = context_length, too_long

    def row(self, document: Document, random: Random) -> tuple[Tensor, VisualSample]:
        """No pixels (the sample has them), and the sample of one document; raises as `text_row`."""
        return no_pixels(document, random), self.text_row(document, random)  # type: ignore[arg-type]

    def text_row(self, document: Document, random: Random) -> VisualSample:
        """The sample of one document.

        Raises:
            ValueError: it is too long, where that is an error.
            UnusableError: it is too long otherwise, or there is nothing in it to learn.
        """
        told = self.layout(document, random)
        return self._fitting(self.processor.sample(told, random, self.layout.special, self.learn))

    def _fitting(self, sample: VisualSample) -> VisualSample:
        tokens, pictures = len(sample.ids), int(sample.vision.sum())
        if tokens <= self.context_length:
            return sample
        if self.too_long == "cut":
            return shortened(sample, self.context_length, self.processor.ids.image_begin)
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

    def batch(self, pixels: Tensor, rows: Sequence[VisualSample], generator: torch.Generator) -> VisualTokenBatch:
        """The batch of some samples; `pixels` are empty, nothing is drawn."""
        return visual_rows_batch([[row] for row in rows], self.processor.ids.pad)


class VisualSampleCollate(VisualCollate):
    """As `VisualCollate`, but samples stay samples: for loaders that put them into rows themselves."""

    def batch(  # type: ignore[override]
        self, pixels: Tensor, rows: Sequence[VisualSample], generator: torch.Generator
    ) -> list[VisualSample]:
        """The samples as they are."""
        return list(rows)
