"""What collations of token sequences share: documents to samples no longer than the context, samples to batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from random import Random
from typing import Any, ClassVar

import torch
from torch import Tensor

from multimodal_zoo.data.collate import PictureTransform
from multimodal_zoo.data.documents import Document, Picture
from multimodal_zoo.data.skips import UnusableError
from multimodal_zoo.data.token_loader import SampleKind


def no_pixels(picture: Picture | Document, random: Random) -> Tensor:
    """What loaders carry in place of pixels where samples hold their pictures, or codes of them, themselves."""
    return torch.empty(0, dtype=torch.uint8)


class SequenceCollate(ABC):
    """Turns documents into samples, and samples into a batch with one in each row.

    Args:
        processor: the model's.
        context_length: most tokens of a document, those of pictures counted.
        too_long: a name of `lengths`: what happens to longer ones.

    Attributes:
        kind: what the samples are.
        lengths: an error stops training; what is left out (skip) is counted; whatever else there is, `cut` does.

    Raises:
        ValueError: an unknown choice, or a context below two tokens.
    """

    kind: ClassVar[SampleKind]
    lengths: ClassVar[tuple[str, ...]] = ("error", "skip")

    def __init__(self, processor: Any, context_length: int, too_long: str) -> None:
        if too_long not in self.lengths:
            raise ValueError(f"data.batching.too_long is {too_long!r}; it must be one of {', '.join(self.lengths)}")
        if context_length < 2:
            raise ValueError(f"data.batching.context_length is {context_length}; a prediction takes 2 tokens")
        self.image_transform: PictureTransform | None = no_pixels
        self.processor, self.context_length, self.too_long = processor, context_length, too_long

    @abstractmethod
    def sample(self, document: Document, random: Random) -> Any:
        """The sample of one document, however long."""

    def cut(self, sample: Any) -> Any:
        """A sample without its end, so that it fits; only asked where `lengths` has more than `error` and `skip`."""
        return sample

    def row(self, document: Document, random: Random) -> tuple[Tensor, Any]:
        """No pixels, and the sample of one document; raises as `text_row`."""
        return no_pixels(document, random), self.text_row(document, random)

    def text_row(self, document: Document, random: Random) -> Any:
        """The sample of one document.

        Raises:
            ValueError: it is too long, where that is an error.
            UnusableError: it is too long, where it is left out, or there is nothing in it to learn.
        """
        sample = self.sample(document, random)
        if self.too_long not in ("error", "skip"):
            return self.cut(sample)
        tokens = len(sample.ids)
        if tokens <= self.context_length:
            return sample
        if self.too_long == "skip":
            raise UnusableError(f"longer than {self.context_length} tokens", f"{sample.key} ({tokens} tokens)")
        pictures = f", {int(sample.vision.sum())} of them of pictures" if hasattr(sample, "vision") else ""
        raise ValueError(
            f"document {sample.key!r} has {tokens} tokens{pictures}; data.batching.context_length is "
            f"{self.context_length}: raise it, or set data.batching.too_long={' or '.join(self.lengths[1:])}"
        )

    def check(self, document: Document) -> None:
        """Find out whether a document is usable.

        Raises:
            UnusableError: it is not.
        """
        self.text_row(document, Random(0))

    def batch(self, pixels: Tensor, rows: Sequence[Any], generator: torch.Generator) -> Any:
        """The batch of some samples; `pixels` are empty, nothing is drawn."""
        return self.kind.batch([[row] for row in rows], self.processor.ids.pad)


class Samples:
    """A collation whose samples stay samples: for loaders that put them into rows themselves.

    Args:
        collate: makes the samples.
    """

    def __init__(self, collate: SequenceCollate) -> None:
        self.image_transform = collate.image_transform
        self.row, self.text_row, self.check = collate.row, collate.text_row, collate.check

    def batch(self, pixels: Tensor, rows: Sequence[Any], generator: torch.Generator) -> list[Any]:
        """The samples as they are."""
        return list(rows)
