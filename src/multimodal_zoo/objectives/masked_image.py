"""Masked image modelling: a student predicts a frozen teacher's features of the patches that it does not see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.nn.beside import WithFrozen
from multimodal_zoo.nn.processes import summed, world_size
from multimodal_zoo.objectives.batch import MaskedImageBatch
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.masked_student import MaskedStudent
    from multimodal_zoo.encoders.patch_teacher import PatchTeacher


def masked_cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Minus the mean cosine similarity over the masked patches of all processes (EVA, arXiv 2211.07636).

    Exact under data parallelism, also where processes masked different numbers of patches: each passes its own, and
    the mean over processes of what they receive is the mean over all patches. Without any masked patch it is 0.

    Args:
        prediction: (masked, width), the student's; compared in float32.
        target: (masked, width), the teacher's.

    Raises:
        ValueError: shapes that do not fit.
    """
    if prediction.ndim != 2 or prediction.shape != target.shape:
        shapes = f"prediction {tuple(prediction.shape)}, target {tuple(target.shape)}"
        raise ValueError(f"student and teacher must give one row of equal width for each masked patch, not {shapes}")
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    cosines = F.cosine_similarity(prediction.to(dtype), target.to(dtype), dim=-1)
    masked = summed(torch.tensor(len(cosines), device=cosines.device)).clamp_min(1)
    return -cosines.sum() * world_size() / masked


@OBJECTIVES.register_module(name="masked_image")
class MaskedImageObjective(WithFrozen):
    """The objective of EVA's pretraining from a CLIP teacher ("weak to strong": the student may be the larger one).

    The teacher is no submodule; see `WithFrozen`.

    Args:
        teacher: gives the features to predict.
    """

    def __init__(self, teacher: PatchTeacher) -> None:
        super().__init__(teacher)

    @property
    def teacher(self) -> PatchTeacher:
        """The frozen teacher."""
        return self.beside

    def forward(self, model: MaskedStudent, batch: MaskedImageBatch) -> dict[str, Tensor]:
        """Loss of this process's masked patches.

        Returns:
            "loss", to back-propagate, and "masked_share", the part of the patches that is masked.

        Raises:
            ValueError: student and teacher differ in their grids of patches or in width.
        """
        targets = self.teacher(batch.images)
        predictions = model(batch.images, batch.mask)
        if targets.grid != predictions.grid or targets.tokens.shape[1] != batch.mask.shape[1]:
            raise ValueError(
                f"the student has a grid of {_shape(predictions.grid)} patches, the teacher one of "
                f"{_shape(targets.grid)}: choose model.image.patches.patch_size, model.image.image_size and "
                "teacher.image_size so that they agree"
            )
        if targets.tokens.shape[-1] != predictions.tokens.shape[-1]:
            raise ValueError(
                f"the teacher's features are {targets.tokens.shape[-1]} wide, the student predicts "
                f"{predictions.tokens.shape[-1]}: set model.target_width to the teacher's width"
            )
        loss = masked_cosine_loss(predictions.tokens, targets.tokens[batch.mask])
        return {"loss": loss, "masked_share": batch.mask.float().mean()}


def _shape(grid: tuple[int, int]) -> str:
    return f"{grid[0]}x{grid[1]}"
