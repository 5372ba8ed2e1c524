"""Videos in an image-text objective: the mean of the frames' features stands for the video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.encoders.outputs import Embeddings
from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder


class FrameMean(nn.Module):
    """A dual encoder whose images are frames of videos (EVA-CLIP-18B, arXiv:2402.04252).

    Args:
        model: encodes one picture at a time.
    """

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def encode_image(self, frames: Tensor) -> Tensor:
        """The mean of the frames' normalised embeddings, normalised: `(batch, frames, 3, height, width)` to rows.

        Raises:
            ValueError: another number of dimensions.
        """
        if frames.ndim != 5:
            raise ValueError(f"frames: expected (batch, frames, 3, height, width), got {tuple(frames.shape)}")
        embeddings = self.model.encode_image(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return F.normalize(embeddings.mean(dim=1), dim=-1)

    def encode_text(self, ids: Tensor) -> Tensor:
        """As the model does."""
        return self.model.encode_text(ids)

    def scale(self) -> Tensor:
        """As the model's."""
        return self.model.scale()

    def forward(self, frames: Tensor, ids: Tensor) -> Embeddings:
        """Embeddings of videos `(batch, frames, 3, height, width)` and of token ids `(batch, tokens)`."""
        return Embeddings(self.encode_image(frames), self.encode_text(ids), self.scale())


@OBJECTIVES.register_module(name="video_text")
class VideoTextObjective(nn.Module):
    """Any objective of image-text pairs, for video-text pairs.

    Args:
        objective: what is computed once each video has one feature (`contrastive`).
    """

    def __init__(self, objective: nn.Module) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, model: DualEncoder, batch: ImageTextBatch) -> dict[str, Any]:
        """Loss and metrics of the inner objective.

        Args:
            model: a dual encoder of pictures.
            batch: its `images` are `(batch, frames, 3, height, width)`.
        """
        return self.objective(FrameMean(model), batch)
