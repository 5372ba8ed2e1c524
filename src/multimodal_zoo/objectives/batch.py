"""The batches that objectives take: pairs, pairs in views, masked images, sequences of tokens, pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.nn.movable import moved, pinned
from multimodal_zoo.nn.patch_cells import PatchCells


@dataclass
class ImageTextBatch:
    """Image-text pairs as tensors; row i of every field belongs to pair i.

    Attributes:
        images: (batch, 3, height, width), float, normalised as the model's image transform says.
        ids: (batch, longest), long, padded to the longest text of the batch.
        keys: name of each pair in its data set, for error messages and reports.
        concepts: (batch,), long. Two pairs with the same id show the same thing, so that neither is a negative of
            the other; a negative id belongs to no concept. None: every other pair is a negative.

    Raises:
        ValueError: the fields do not have the same number of rows.
    """

    to, pin_memory = moved, pinned

    images: Tensor
    ids: Tensor
    keys: list[str]
    concepts: Tensor | None = None

    def __post_init__(self) -> None:
        rows = {"images": len(self.images), "ids": len(self.ids), "keys": len(self.keys)}
        if self.concepts is not None:
            rows["concepts"] = len(self.concepts)
        if len(set(rows.values())) != 1:
            raise ValueError(f"ImageTextBatch needs as many rows in every field, not {rows}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class MultiViewBatch:
    """Image-text pairs of which each side is there in several views; row i of every view belongs to pair i.

    Attributes:
        images: view -> (batch, 3, height, width), float, normalised as the model's image transform says.
        texts: view -> (batch, longest of that view), long, padded to the longest text of the view.
        labels: text view -> long of that view's shape: what stood at a masked place, -100 everywhere else. Only views
            with masked words have an entry.
        keys: name of each pair in its data set, for error messages and reports.
        concepts: (batch,), long, or None; see `ImageTextBatch`.

    Raises:
        ValueError: no image or text view, views with different numbers of rows, or labels that fit no text view.
    """

    to, pin_memory = moved, pinned

    images: dict[str, Tensor]
    texts: dict[str, Tensor]
    labels: dict[str, Tensor]
    keys: list[str]
    concepts: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.images or not self.texts:
            raise ValueError(
                f"MultiViewBatch needs views of both sides: images {list(self.images)}, texts {list(self.texts)}"
            )
        rows = {"keys": len(self.keys)}
        for side, views in (("images", self.images), ("texts", self.texts), ("labels", self.labels)):
            rows |= {f"{side}.{name}": len(view) for name, view in views.items()}
        if self.concepts is not None:
            rows["concepts"] = len(self.concepts)
        if len(set(rows.values())) != 1:
            raise ValueError(f"MultiViewBatch needs as many rows in every view, not {rows}")
        for name, labels in self.labels.items():
            if name not in self.texts or labels.shape != self.texts[name].shape:
                shapes = {view: tuple(ids.shape) for view, ids in self.texts.items()}
                raise ValueError(f"labels.{name} has shape {tuple(labels.shape)}, which no text view of {shapes} has")

    def __len__(self) -> int:
        return len(self.keys)


@dataclass
class MaskedImageBatch:
    """Images as tensors with the patches that a student must not see; row i of every field belongs to image i.

    Attributes:
        images: (batch, 3, height, width), float, normalised as the model's image transform says.
        mask: (batch, patches), bool, row by row of the grid; True where the student must not look.
        keys: name of each image in its data set, for error messages and reports.

    Raises:
        ValueError: the fields do not have the same number of rows, or the mask is not boolean.
    """

    to, pin_memory = moved, pinned

    images: Tensor
    mask: Tensor
    keys: list[str]

    def __post_init__(self) -> None:
        rows = {"images": len(self.images), "mask": len(self.mask), "keys": len(self.keys)}
        if len(set(rows.values())) != 1:
            raise ValueError(f"MaskedImageBatch needs as many rows in every field, not {rows}")
        if self.mask.dtype != torch.bool or self.mask.ndim != 2:
            raise ValueError(f"mask must be bool (batch, patches), not {self.mask.dtype} {tuple(self.mask.shape)}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass
class TokenBatch:
    """Sequences of tokens for next-token prediction; several documents may share a row.

    Attributes:
        ids: (batch, tokens), long.
        weights: (batch, tokens), float: how much the prediction of this token from those before it counts; 0 for
            tokens that are only read. A document's first token and padding have 0.
        documents: (batch, tokens), long: number of the token's document in its row, -1 at padding.
        positions: (batch, tokens), long: place of the token in its document, 0 at padding.
        keys: names of the documents, for error messages and reports.

    Raises:
        ValueError: fields of different shapes.
    """

    to, pin_memory = moved, pinned

    ids: Tensor
    weights: Tensor
    documents: Tensor
    positions: Tensor
    keys: list[str]

    def __post_init__(self) -> None:
        shapes = {name: tuple(getattr(self, name).shape) for name in ("ids", "weights", "documents", "positions")}
        if len(set(shapes.values())) != 1 or self.ids.ndim != 2:
            raise ValueError(f"TokenBatch needs fields of one shape (batch, tokens), not {shapes}")

    def __len__(self) -> int:
        return len(self.ids)

    def inputs(self) -> dict[str, Any]:
        """What a causal model's `forward` takes of it, by name."""
        return {"ids": self.ids, "positions": self.positions, "documents": self.documents}


@dataclass
class PictureTokenBatch(TokenBatch):
    """Sequences in which pictures stand as embeddings: EVE, and other models that read pixels or an encoder's features.

    Attributes:
        vision: (batch, tokens), bool: where tokens of pictures stand, row by row in the order of `pictures`. The ids
            there are any of the vocabulary.
        pictures: the pictures; None where the batch has none.
        teacher: (pictures, 3, side, side), float, what a frozen teacher sees of each; None where none is asked.
        boxes: which of the teacher's patches show the picture, for each; empty without a teacher.

    Raises:
        ValueError: fields that do not fit each other, with the counts.
    """

    vision: Tensor
    pictures: PatchCells | None = None
    teacher: Tensor | None = None
    boxes: list[Box] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vision.shape != self.ids.shape or self.vision.dtype != torch.bool:
            raise ValueError(f"vision must be bool {tuple(self.ids.shape)}, not {self.vision.dtype}")
        count = 0 if self.pictures is None else len(self.pictures)
        seen = count if self.teacher is None else len(self.teacher)
        if seen != count or (self.teacher is not None and len(self.boxes) != count):
            raise ValueError(f"{count} pictures, {seen} for the teacher, {len(self.boxes)} boxes: expected as many")

    def inputs(self) -> dict[str, Any]:
        """See `TokenBatch`."""
        return {**super().inputs(), "vision": self.vision, "pictures": self.pictures}


@dataclass
class PreferenceBatch:
    """Pairs of sequences that answer the same prompt, one of which is preferred; row i of both belongs to pair i.

    Attributes:
        chosen: the preferred sequences; the tokens with a weight above 0 are compared.
        rejected: the others.
        reference: (batch, 2), float, log-probabilities of chosen and rejected tokens under the reference model, where
            they were computed before; None where they were not.

    Raises:
        ValueError: different numbers of rows.
    """

    to, pin_memory = moved, pinned

    chosen: TokenBatch
    rejected: TokenBatch
    reference: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.chosen) != len(self.rejected):
            raise ValueError(f"PreferenceBatch has {len(self.chosen)} chosen and {len(self.rejected)} rejected rows")
        if self.reference is not None and self.reference.shape != (len(self.chosen), 2):
            raise ValueError(f"reference must be ({len(self.chosen)}, 2), not {tuple(self.reference.shape)}")

    @property
    def keys(self) -> list[str]:
        """Names of the pairs."""
        return self.chosen.keys

    def __len__(self) -> int:
        return len(self.chosen)


@dataclass
class PixelBatch:
    """Pictures or clips alone, for a visual tokenizer.

    Attributes:
        pixels: (batch, 3, height, width) or (batch, frames, 3, height, width), float, normalised.
        keys: name of each in its data set, for error messages and reports.

    Raises:
        ValueError: the fields do not have the same number of rows.
    """

    to, pin_memory = moved, pinned

    pixels: Tensor
    keys: list[str]

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.keys):
            raise ValueError(f"PixelBatch has {len(self.pixels)} pictures and {len(self.keys)} keys")

    def __len__(self) -> int:
        return len(self.pixels)
