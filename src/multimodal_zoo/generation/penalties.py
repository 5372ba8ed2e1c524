"""Changes of scores by what a row holds already: repetition, too early ends, sequences that must not be left."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_zoo.generation.trie import Trie


@dataclass(frozen=True)
class Penalties:
    """What is changed before an id is chosen, in the order of transformers' processors.

    Attributes:
        repetition: scores of ids that the row holds already are divided by it, negative ones multiplied
            (arXiv 1909.05858); 1 changes nothing. The prompt does not count.
        min_length: fewest ids of a row before the one that ends it.
        start: an id that counts as the first of every row though the model never reads it (transformers before 4.38
            began so behind embeddings); None for none.
        allowed: the only sequences that may be written; None for any.

    Raises:
        ValueError: a repetition that is not positive.
    """

    repetition: float = 1.0
    min_length: int = 0
    start: int | None = None
    allowed: Trie | None = None

    def __post_init__(self) -> None:
        if self.repetition <= 0:
            raise ValueError(f"repetition_penalty is {self.repetition}; expected a number above 0, 1 for none")

    def __call__(self, scores: Tensor, ids: Tensor, end: int | None, first: int = 0) -> Tensor:
        """Scores with what the ids so far change.

        Args:
            scores: (rows, n), logits or log-probabilities.
            ids: long (rows, steps so far).
            end: the id that ends a row; None for none.
            first: the id that the first score belongs to.
        """
        count = scores.shape[1]
        held = ids if self.start is None else torch.nn.functional.pad(ids, (1, 0), value=self.start)
        if self.repetition != 1 and held.shape[1]:
            inside = ((held >= first) & (held < first + count)).to(scores)
            places = (held - first).clamp(0, count - 1)
            seen = torch.zeros_like(scores).scatter_add_(1, places, inside) > 0
            scores = torch.where(
                seen, torch.where(scores < 0, scores * self.repetition, scores / self.repetition), scores
            )
        if end is not None and held.shape[1] < self.min_length and first <= end < first + count:
            scores = scores.index_fill(1, torch.tensor([end - first], device=scores.device), float("-inf"))
        if self.allowed is not None:
            may = torch.zeros_like(scores, dtype=torch.bool)
            for row, before in enumerate(ids.tolist()):
                may[row, [one - first for one in self.allowed.after(before) if first <= one < first + count]] = True
            scores = scores.masked_fill(~may & may.any(1, keepdim=True), float("-inf"))
        return scores
