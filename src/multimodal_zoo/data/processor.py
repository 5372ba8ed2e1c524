"""What must match a model's weights: its image transform and its tokenizer, together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from multimodal_zoo.data.documents import Picture
from multimodal_zoo.data.pictures import PathLike
from multimodal_zoo.data.transforms import ImageTransform
from multimodal_zoo.registry import DATASETS


class Tokenizer(Protocol):
    """What collation asks of a tokenizer."""

    pad_id: int

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, from start to end, not padded."""
        ...


def pad_ids(rows: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """Ragged ids as long (batch, longest), filled with `pad_id` behind each row."""
    longest = max((len(row) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.as_tensor(row, dtype=torch.long)
    return ids


@DATASETS.register_module(name="image_processor")
class ImageProcessor:
    """Turns pictures into the tensors that a model without texts was trained on.

    Args:
        images: the image transform.
    """

    def __init__(self, images: ImageTransform) -> None:
        self.transform = images

    def images(self, images: Sequence[Picture | PathLike | bytes]) -> Tensor:
        """Float (batch, 3, size, size) of PIL images, uint8 arrays, paths or encoded bytes."""
        return self.transform(images)


@DATASETS.register_module(name="image_text_processor")
class ImageTextProcessor(ImageProcessor):
    """Turns pictures and texts into the tensors that a model was trained on.

    Args:
        images: the image transform.
        texts: the tokenizer.
    """

    def __init__(self, images: ImageTransform, texts: Tokenizer) -> None:
        super().__init__(images)
        self.tokenizer = texts

    def texts(self, texts: str | Sequence[str]) -> Tensor:
        """Long (batch, longest): ids, trimmed to the longest text of the batch.

        Raises:
            TypeError: something else than texts.
        """
        if not isinstance(texts, str) and not isinstance(texts, Iterable):
            raise TypeError(f"texts: expected a string or a list of strings, got {type(texts).__name__}")
        words = [texts] if isinstance(texts, str) else list(texts)
        for number, word in enumerate(words):
            if not isinstance(word, str):
                raise TypeError(f"texts: expected strings, got {type(word).__name__} {word!r} at place {number}")
        return pad_ids(self.tokenizer.encode(words), self.tokenizer.pad_id)
