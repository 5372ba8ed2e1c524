"""Next-token prediction with patch alignment (EVE, arXiv 2406.11832): decoder states predict a teacher's features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.decoders.patch_aligning import PatchAligning, Taps, cells_per_patch, patch_places
from multimodal_zoo.nn.beside import WithFrozen
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.decoders.eve import Eve
    from multimodal_zoo.encoders.masked_student import PatchFeatures
    from multimodal_zoo.encoders.patch_teacher import PatchTeacher


def cosine_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity of each row, as the released code has it; float32 at least."""
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return 1 - F.cosine_similarity(prediction.to(dtype), target.to(dtype), dim=-1, eps=1e-8)


def squared_distance(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared distance of each row after normalisation, as the paper words it: twice the cosine distance."""
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    difference = F.normalize(prediction.to(dtype), dim=-1) - F.normalize(target.to(dtype), dim=-1)
    return difference.square().sum(-1)


#: Name -> distance of rows (patches, width), (patches,).
DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cosine": cosine_distance, "mse": squared_distance}


def boxed(features: Tensor, grid: tuple[int, int], boxes: Sequence[Box]) -> Tensor:
    """Features of the patches that show the pictures, one picture behind the other, `(patches, width)`.

    Args:
        features: (pictures, rows * columns, width).
        grid: rows and columns of the teacher's patches.
        boxes: first row, first column, rows and columns of each picture.
    """
    squares = features.unflatten(1, grid)
    parts = [
        one[top : top + rows, left : left + columns].flatten(0, 1)
        for one, (top, left, rows, columns) in zip(squares, boxes, strict=True)
    ]
    return torch.cat(parts)


def picture_distances(
    aligner: PatchAligning, tapped: Sequence[Tensor], features: PatchFeatures, boxes: Sequence[Box], distance: str
) -> Tensor:
    """Mean distance of each picture's patches to the teacher's features, `(pictures,)`.

    Args:
        aligner: predicts the features.
        tapped: states of its layers, each (patches, width), the pictures' one behind the other.
        features: the teacher's, of all patches that it sees.
        boxes: which of these show the pictures.
        distance: a name of `DISTANCES`.
    """
    target = boxed(features.tokens, features.grid, boxes)
    distances = DISTANCES[distance](aligner(tapped), target)
    return torch.stack([part.mean() for part in distances.split([rows * columns for _, _, rows, columns in boxes])])


def no_distance(aligner: PatchAligning, tapped: Sequence[Tensor]) -> Tensor:
    """Zero, `(1,)`, of any states: processes that train together need the same gradients in the same order on each.

    Float32 at least, as a distance is: they exchange both in one message.

    Args:
        aligner: predicts the features.
        tapped: states of its layers, each (n, width).
    """
    total = aligner(tapped).sum()[None]
    return 0 * total.to(torch.promote_types(total.dtype, torch.float32))


@OBJECTIVES.register_module(name="aligned_next_token")
class AlignedNextToken(WithFrozen):
    """Cross-entropy of the next token plus the distance to a teacher's features; the latter while training only.

    The teacher is no submodule; see `WithFrozen`. Accumulated batches are weighed by their tokens, the alignment's too.

    Args:
        objective: the cross-entropy.
        teacher: a frozen image encoder's patch features.
        weight: of the alignment, 1 in EVE.
        distance: a name of `DISTANCES`; `mse` is twice `cosine`.

    Raises:
        ValueError: an unknown distance.
    """

    def __init__(
        self, objective: NextToken, teacher: PatchTeacher, weight: float = 1.0, distance: str = "cosine"
    ) -> None:
        super().__init__(teacher)
        if distance not in DISTANCES:
            raise ValueError(f"objective.distance is {distance!r}; it takes {', '.join(DISTANCES)}")
        self.objective, self.weight, self.distance = objective, weight, distance

    @property
    def teacher(self) -> PatchTeacher:
        """The frozen teacher."""
        return self.beside

    def check(self, model: nn.Module) -> None:
        """Refuse a model without an aligning layer, or one that is not of the teacher's width.

        Raises:
            ValueError: with the key to change.
        """
        self.objective.check(model)
        aligner = getattr(model, "aligner", None)
        if aligner is None:
            raise ValueError("objective aligned_next_token needs model.aligner (patch_aligning); it is null")
        if aligner.teacher_width != self.teacher.width:
            raise ValueError(
                f"model.aligner.teacher_width is {aligner.teacher_width}, the teacher's features are "
                f"{self.teacher.width} wide"
            )

    def forward(self, model: Eve, batch: PictureTokenBatch) -> dict[str, Tensor]:
        """Loss of this process's part of the batch.

        Returns:
            what the cross-entropy gives, its "loss" increased by the alignment; "language_loss" and "alignment_loss",
            means over all processes. In evaluation mode there is no alignment.

        Raises:
            ValueError: pictures without a teacher's view, or grids that do not fit.
        """
        if not model.training:
            return self.objective(model, batch)
        aligner = cast("PatchAligning", model.aligner)  # `check` has seen it
        taps = _taps(aligner, batch)
        hidden = model(**batch.inputs(), observe=taps)
        found = self.objective.measured(model, hidden, batch)
        distances = self._distances(aligner, batch, taps)
        counted = 0 if batch.pictures is None else len(distances)
        total = summed(torch.tensor(counted, device=hidden.device)).clamp_min(1)
        alignment = distances.sum() * world_size() / total
        language, everywhere = summed(torch.stack([found["loss"], alignment])) / world_size()
        loss = found["loss"] + self.weight * alignment
        return {**found, "loss": loss, "language_loss": language, "alignment_loss": everywhere}

    def _distances(self, aligner: PatchAligning, batch: PictureTokenBatch, taps: Taps) -> Tensor:
        if batch.pictures is None or batch.teacher is None:
            return no_distance(aligner, taps.tapped())
        return picture_distances(aligner, taps.tapped(), self.teacher(batch.teacher), batch.boxes, self.distance)


def _taps(aligner: PatchAligning, batch: PictureTokenBatch) -> Taps:
    if batch.pictures is None:  # any token, so that the graph is that of a batch with pictures
        return Taps(aligner.taps, torch.zeros(1, 1, dtype=torch.long, device=batch.ids.device))
    if batch.teacher is None:
        raise ValueError("the batch has no view for the teacher: set data.teacher=true")
    ratios = cells_per_patch(batch.pictures.grids, batch.boxes)
    return Taps(aligner.taps, patch_places(batch.vision, batch.pictures.grids, ratios))
