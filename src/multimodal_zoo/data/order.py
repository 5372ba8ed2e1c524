"""In which order a data set with numbered samples is seen: a pure function of (seed, epoch), cut up among ranks."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from multimodal_zoo.data.randomness import torch_random
from multimodal_zoo.data.skips import MapReader
from multimodal_zoo.registry import DATASETS


class Order(Protocol):
    """Numbers of the samples of one epoch."""

    def __call__(self, reader: MapReader, generator: torch.Generator) -> Tensor:
        """Long (samples of the epoch,)."""
        ...


@DATASETS.register_module(name="shuffled_order")
class ShuffledOrder:
    """Every sample once."""

    def __call__(self, reader: MapReader, generator: torch.Generator) -> Tensor:
        """A permutation of range(len(reader))."""
        return torch.randperm(len(reader), generator=generator)


@DATASETS.register_module(name="concept_order")
class ConceptOrder:
    """At most a few samples of each concept an epoch, so that a concept of a hundred variants does not fill batches.

    Args:
        most: largest number of samples of one concept.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, reader: MapReader, generator: torch.Generator) -> Tensor:
        """Sample numbers in random order; other samples of a concept come in other epochs.

        Raises:
            ValueError: the reader does not know concepts.
        """
        concepts = getattr(reader, "concepts", None)
        if concepts is None:
            raise ValueError(f"data.order: concept_order needs concepts, which {type(reader).__name__} does not have")
        order = torch.randperm(len(reader), generator=generator)
        seen: dict[int, int] = {}
        kept = []
        for index, concept in zip(order.tolist(), torch.as_tensor(concepts)[order].tolist(), strict=True):
            seen[concept] = seen.get(concept, 0) + 1
            if seen[concept] <= self.most:
                kept.append(index)
        return torch.tensor(kept)


class Plan(NamedTuple):
    """One batch of one rank: sample numbers, and where they stand in the epoch's order.

    Attributes:
        epoch: the epoch.
        number: the batch in the epoch.
        first: place of the first sample in the order of all ranks.
        indices: sample numbers.
    """

    epoch: int
    number: int
    first: int
    indices: list[int]


def check_size(samples: int, batch_size: int, ranks: int) -> None:
    """Refuse a data set that cannot fill one batch.

    Raises:
        ValueError: with the key to change.
    """
    if samples < batch_size * ranks:
        raise ValueError(
            f"data.batch_size is {batch_size} for each of {ranks} rank(s), but an epoch has {samples} samples; "
            f"set data.batch_size to at most {samples // ranks}"
        )


def plan_epoch(
    reader: MapReader, order: Order, batch_size: int, seed: int, epoch: int, rank: int = 0, ranks: int = 1
) -> list[Plan]:
    """The batches of one rank in one epoch; the incomplete last one is dropped.

    Rows of one global batch follow each other in the order, so that two ranks of 64 see what one rank of 128 sees.
    """
    indices = order(reader, torch_random(seed, epoch)).tolist()
    check_size(len(indices), batch_size, ranks)
    plans = []
    for number in range(len(indices) // (batch_size * ranks)):
        first = (number * ranks + rank) * batch_size
        plans.append(Plan(epoch, number, first, indices[first : first + batch_size]))
    return plans


def plan_once(samples: int, batch_size: int, rank: int = 0, ranks: int = 1) -> list[Plan]:
    """Batches in the reader's order, the last one smaller; every rank gets as many samples (a rest is dropped)."""
    share = samples // ranks
    starts = range(rank * share, (rank + 1) * share, batch_size)
    end = (rank + 1) * share
    return [Plan(0, i, start, list(range(start, min(start + batch_size, end)))) for i, start in enumerate(starts)]
