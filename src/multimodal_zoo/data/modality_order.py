"""Batches of similar lengths, of conversations with pictures or without: the order of EVE's fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_zoo.data.skips import MapReader
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="modality_length_order")
class ModalityLengthOrder:
    """Samples grouped by modality and length, as LLaVA and EVE are fine-tuned (published sampler).

    Samples with pictures and without are shuffled apart and cut into groups of one optimisation step. Within a group
    they are sorted by length and dealt to the processes so that each gets about as much; the groups are shuffled. What
    is left of both makes the last group. That holds for padded batches of one reader; packed rows and mixtures take
    samples one by one, in this order, and their processes' shares are not balanced.

    Args:
        batch_size: samples in a batch, for each process.
        ranks: processes that train together.
        accumulation: batches that are accumulated to a step.

    Raises:
        ValueError: numbers below 1.
    """

    def __init__(self, batch_size: int, ranks: int = 1, accumulation: int = 1) -> None:
        if min(batch_size, ranks, accumulation) < 1:
            raise ValueError(
                f"data.order: batch_size {batch_size}, ranks {ranks} and accumulation {accumulation} must be 1 or more"
            )
        self.batch_size, self.ranks, self.accumulation = batch_size, ranks, accumulation

    def __call__(self, reader: MapReader, generator: torch.Generator) -> Tensor:
        """A permutation of range(len(reader)).

        Raises:
            ValueError: the reader does not know lengths.
        """
        lengths = getattr(reader, "modality_lengths", None)
        if lengths is None:
            raise ValueError(
                f"data.order: modality_length_order needs the lengths of samples, which {type(reader).__name__} does "
                "not know; take shuffled_order"
            )
        size = self.batch_size * self.ranks * self.accumulation
        whole: list[list[int]] = []
        rest: list[int] = []
        for chosen in (True, False):
            indices = [index for index, length in enumerate(lengths) if (length > 0) == chosen]
            drawn = [indices[place] for place in torch.randperm(len(indices), generator=generator).tolist()]
            ends = len(drawn) // size * size
            whole += [drawn[start : start + size] for start in range(0, ends, size)]
            rest += drawn[ends:]
        order = [index for place in torch.randperm(len(whole), generator=generator).tolist()
                 for index in self._dealt(whole[place], lengths)]  # fmt: skip
        return torch.tensor(order + sorted(rest, key=lambda index: -abs(lengths[index])), dtype=torch.long)

    def _dealt(self, group: Sequence[int], lengths: Sequence[int]) -> list[int]:
        """A group in the order in which processes take it: for each batch the rows of each process."""
        shares: list[list[int]] = [[] for _ in range(self.ranks)]
        totals, room = [0] * self.ranks, len(group) // self.ranks
        for index in sorted(group, key=lambda index: -abs(lengths[index])):
            rank = min((rank for rank in range(self.ranks) if len(shares[rank]) < room), key=lambda rank: totals[rank])
            shares[rank].append(index)
            totals[rank] += abs(lengths[index])
        starts = range(0, room, self.batch_size)
        return [index for start in starts for share in shares for index in share[start : start + self.batch_size]]
