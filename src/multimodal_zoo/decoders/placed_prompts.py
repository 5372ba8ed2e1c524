"""Prompts with places for what is no word: unequal rows of ids to one batch, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.generation.prompts import PromptBatch, left_padded


def placed_prompts(
    rows: Sequence[Tensor], places: Sequence[Tensor], pad_id: int, device: torch.device
) -> tuple[PromptBatch, Tensor]:
    """Ids padded on the left, and bool (batch, tokens) where pictures stand among them; both on a device.

    Args:
        rows: ids of each prompt, long (tokens,).
        places: bool of the same lengths.
        pad_id: any id of the vocabulary.
        device: of the model.
    """
    ids = left_padded([torch.as_tensor(row) for row in rows], pad_id).to(device)
    tokens = ids.inputs.shape[1]
    return ids, torch.stack([F.pad(row, (tokens - len(row), 0)) for row in places]).to(device)
