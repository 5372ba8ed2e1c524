"""Prompts of different lengths as one batch, aligned at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.nn.movable import moved


@dataclass(frozen=True, eq=False)
class PromptBatch:
    """Prompts padded on the left, so that every one ends at the last column and all go on from there.

    Attributes:
        inputs: long ids (batch, tokens), or embeddings (batch, tokens, width); anything stands at padding.
        real: bool (batch, tokens), False at padding.
        vision: bool (batch, tokens), the tokens of pictures, where these are embeddings; None where all are text.
    """

    to = moved

    inputs: Tensor
    real: Tensor
    vision: Tensor | None = None

    def __post_init__(self) -> None:
        if self.real.dtype != torch.bool or self.real.shape != self.inputs.shape[:2]:
            raise ValueError(
                f"prompts of shape {tuple(self.inputs.shape)} need a bool mask (batch, tokens), got {self.real.dtype} "
                f"{tuple(self.real.shape)}"
            )
        if not self.real.shape[0] or not bool(self.real[:, -1:].any(1).all()):
            raise ValueError("prompts: every one needs a token, and its last one in the last column (pad on the left)")

    def __len__(self) -> int:
        """Number of prompts."""
        return self.inputs.shape[0]

    @property
    def positions(self) -> Tensor:
        """Long (batch, tokens): counted from the first real token; 0 at padding."""
        return (self.real.long().cumsum(1) - 1).clamp_(min=0)

    @property
    def lengths(self) -> Tensor:
        """Long (batch,): real tokens of each prompt."""
        return self.real.sum(1)

    def under(self, other: PromptBatch) -> PromptBatch:
        """These prompts below others, as one batch with one padding.

        Raises:
            ValueError: ids on one side and embeddings on the other.
        """
        if self.vision is not None or other.vision is not None:
            raise ValueError("prompts: guidance between prompts with embedded pictures is not offered")
        if self.inputs.dim() != other.inputs.dim():
            raise ValueError("prompts: ids cannot stand in one batch with embeddings; embed the ids first")
        tokens = max(self.inputs.shape[1], other.inputs.shape[1])
        parts = [part._widened(tokens) for part in (other, self)]
        return PromptBatch(torch.cat([p.inputs for p in parts]), torch.cat([p.real for p in parts]))

    def aligned(self) -> PromptBatch:
        """The same prompts with what all of them begin with in front of their padding, in the same columns.

        Positions and masks follow from `real`, so that nothing else changes; `Remembering` reads that beginning once.
        Prompts that have padding elsewhere than on the left stay as they are.
        """
        most, behind = int(self.lengths.min()) - 1, self.real[:, 1:] < self.real[:, :-1]
        if most < 1 or bool(self.real.all()) or bool(behind.any()):
            return self
        columns = torch.arange(most, device=self.real.device) + (self.real.shape[1] - self.lengths)[:, None]
        rows = torch.arange(len(self), device=self.real.device)[:, None]
        begun = self.inputs[rows, columns]
        same = (begun == begun[:1]).flatten(2).all(2).all(0) if begun.dim() == 3 else (begun == begun[:1]).all(0)
        if self.vision is not None:
            same &= (self.vision[rows, columns] == self.vision[rows[:1], columns[:1]]).all(0)
        common = int(same.long().cumprod(0).sum())
        places = torch.arange(self.real.shape[1], device=self.real.device).expand(len(self), -1)
        ahead = self.real.shape[1] - self.lengths[:, None]
        order = torch.where(
            places < common, places + ahead, torch.where(places < common + ahead, places - common, places)
        )
        vision = None if self.vision is None else self.vision[rows, order]
        return PromptBatch(self.inputs[rows, order], self.real[rows, order], vision)

    def distinct(self) -> tuple[PromptBatch, Tensor]:
        """Each different prompt once, and long (batch,), which of them every row is; embeddings stay as they are."""
        if self.inputs.dim() == 3:
            return self, torch.arange(len(self), device=self.inputs.device)
        rows, which = torch.unique(torch.where(self.real, self.inputs, -1), dim=0, return_inverse=True)
        return PromptBatch(rows.clamp(min=0), rows >= 0), which

    def _widened(self, tokens: int) -> PromptBatch:
        more = tokens - self.inputs.shape[1]
        ahead = (more, 0) if self.inputs.dim() == 2 else (0, 0, more, 0)
        return PromptBatch(F.pad(self.inputs, ahead), F.pad(self.real, (more, 0)))


def left_padded(rows: Sequence[Sequence[int] | Tensor], pad_id: int) -> PromptBatch:
    """Ragged prompts as one batch.

    Args:
        rows: the ids of each prompt, or its embeddings (tokens, width).
        pad_id: stands at padding; with embeddings zeros do.

    Raises:
        ValueError: no prompt, or an empty one.
    """
    parts = [torch.as_tensor(row) for row in rows]
    if not parts or any(not len(part) for part in parts):
        raise ValueError(f"prompts: expected one or more, none of them empty, got {len(parts)}")
    tokens = max(len(part) for part in parts)
    if parts[0].dim() == 2:
        inputs = torch.stack([F.pad(part, (0, 0, tokens - len(part), 0)) for part in parts])
    else:
        inputs = torch.stack([F.pad(part.long(), (tokens - len(part), 0), value=pad_id) for part in parts])
    lengths = torch.tensor([len(part) for part in parts], device=inputs.device)
    real = torch.arange(tokens, device=inputs.device) >= tokens - lengths[:, None]
    return PromptBatch(inputs, real)
