"""What contrasts between pairs share: their checks, which candidate is a row's own, and which show the same as it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.nn.processes import gather, rank, world_size

#: Logit of a pair that is no negative. Finite, so that a block that holds nothing else gives zeros and not nan.
MASKED = -1e30


class Concepts(NamedTuple):
    """What pairs show. Two of one concept are no negatives of each other; a negative number belongs to no concept.

    Attributes:
        own: (rows,) long, of this process's rows.
        everyones: (columns,) long, of the candidates of all processes.
    """

    own: Tensor
    everyones: Tensor

    def same(self, rows: slice, columns: slice, own_column: Tensor) -> Tensor:
        """Which candidates show what a row shows, but for its own: bool (rows, columns).

        Args:
            rows: some of the rows.
            columns: some of the candidates.
            own_column: (rows,) long, the candidate that belongs to each row of all.
        """
        own = self.own[rows, None]
        number = torch.arange(len(self.everyones), device=own.device)[columns]
        return (own == self.everyones[columns]) & (own >= 0) & (number != own_column[rows, None])

    def repeated(self, count: int) -> Concepts:
        """Of rows and candidates that stand there several times, side by side."""
        return Concepts(*(one.repeat_interleave(count) for one in self))


def everyones_concepts(concepts: Tensor | None, rows: int, device: torch.device) -> Concepts | None:
    """This process's concepts and everyone's, None where nobody knows any.

    With several processes all of them gather, whatever they hold: one that knows no concept of its batch would
    otherwise leave out a collective that the others wait in.
    """
    if world_size() == 1:
        return None if concepts is None else Concepts(concepts, concepts)
    own = torch.full((rows,), -1, device=device) if concepts is None else concepts.long()
    everyones = gather(own)
    return None if bool((everyones < 0).all()) else Concepts(own, everyones)


def own_columns(rows: int, device: torch.device) -> Tensor:
    """The candidates, among those of all processes in rank order, that are this process's own rows: long (rows,)."""
    return rank() * rows + torch.arange(rows, device=device)


def held_logits(block_size: int, columns: int) -> int:
    """How many logits `block_size` rows have.

    Raises:
        ValueError: a `block_size` below one.
    """
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}; it must be at least 1 (configuration key: block_size)")
    return block_size * columns


def check_features(sides: dict[str, Tensor], concepts: Tensor | None) -> None:
    """Refuse features that are not rows of pairs.

    Args:
        sides: name -> (batch, width), both sides of the pairs.
        concepts: (batch,), or None.

    Raises:
        ValueError: shapes that do not fit, an empty batch, or features that are no floating-point numbers.
    """
    first, second = sides.values()
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        shapes = ", ".join(f"{name} {tuple(side.shape)}" for name, side in sides.items())
        raise ValueError(f"features of both sides must be (batch, width) with batch > 0, not {shapes}")
    if not (first.is_floating_point() and second.is_floating_point()):
        raise ValueError(f"features must be floating-point, not {first.dtype} and {second.dtype}")
    check_concepts(concepts, len(first))


def check_concepts(concepts: Tensor | None, rows: int) -> None:
    """Refuse concepts that are not one number for each pair.

    Raises:
        ValueError: with their shape.
    """
    if concepts is not None and concepts.shape != (rows,):
        raise ValueError(f"concepts must be ({rows},), one id for each pair, not {tuple(concepts.shape)}")


def check_scale(scale: Tensor) -> None:
    """Refuse a temperature that is not one number.

    Raises:
        ValueError: with its shape.
    """
    if scale.numel() != 1:
        raise ValueError(f"scale must be one number, not a tensor of shape {tuple(scale.shape)}")
