"""The batch of models that read and predict words and visual embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.nn.checks import may_look
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.objectives.batch import TokenBatch


@dataclass
class VisualTokenBatch(TokenBatch):
    """Sequences of words and visual embeddings, either of which may be predicted: Emu, Emu2.

    Attributes:
        vision: (batch, tokens), bool: where visual embeddings stand, row by row in the order of `images`. The ids there
            are any of the vocabulary, and their `weights` are 0.
        regression: (batch, tokens), float: how much the prediction of the embedding at this place, from the states
            before it, counts. Emu predicts the embedding of the token that closes a picture too.
        images: the pictures; None where the batch has none.
        visual: (places, width), float, visual embeddings that were computed before, in place of `images`.

    Raises:
        ValueError: fields that do not fit each other, with the counts.
    """

    vision: Tensor
    regression: Tensor
    images: CountedImages | None = None
    visual: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vision", "regression"):
            if getattr(self, name).shape != self.ids.shape:
                raise ValueError(
                    f"{name} has shape {tuple(getattr(self, name).shape)}, ids have {tuple(self.ids.shape)}"
                )
        if self.vision.dtype != torch.bool:
            raise ValueError(f"vision must be bool, not {self.vision.dtype}")
        if self.images is not None and self.visual is not None:
            raise ValueError("VisualTokenBatch takes images or their visual embeddings, not both")
        given = self.visual.shape[0] if self.visual is not None else 0 if self.images is None else self.images.tokens
        if may_look(self.vision) and int(self.vision.sum()) != given:
            raise ValueError(f"{int(self.vision.sum())} places for {given} visual embeddings of the pictures")

    def inputs(self) -> dict[str, Any]:
        """See `TokenBatch`."""
        return {**super().inputs(), "vision": self.vision, "images": self.images, "visual": self.visual}
