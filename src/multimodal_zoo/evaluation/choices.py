"""Accuracy of a choice among a few of many names, exactly: no names are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import torch
from torch import Tensor

from multimodal_zoo.evaluation.ranking import interval


class Share(NamedTuple):
    """A share of pictures.

    Attributes:
        value: the share.
        low: lower end of its 95 % interval over pictures (Wilson's, for which each picture is one trial: with parts of
            a success it is rather too wide than too narrow).
        high: upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


def check_choices(names: int, choices: Sequence[int]) -> None:
    """Refuse to choose among more names than there are, or among none.

    Raises:
        ValueError: with the number.
    """
    for count in choices:
        if not 1 <= count <= names:
            raise ValueError(f"choices lists {count}; expected 1 to {names}, the number of different texts")


def first_among(ranks: Tensor, names: int, choices: int) -> Tensor:
    """How often the right name comes first among itself and others that are drawn without replacement.

    Of `names - 1` others, `r` are found better than the right one; it wins where none of the `choices - 1` drawn ones
    is among these: C(names - 1 - r, choices - 1) / C(names - 1, choices - 1).

    Args:
        ranks: (pictures,) integers, how many of all names are better than the right one.
        names: how many there are.
        choices: how many are offered.

    Returns:
        (pictures,) float64.

    Raises:
        ValueError: more choices than names, or fewer than one.
    """
    check_choices(names, [choices])
    draws = comb(names - 1, choices - 1)
    table = [comb(names - 1 - rank, choices - 1) / draws for rank in range(names)]
    return torch.tensor(table, dtype=torch.float64)[ranks]


def shares(ranks: Tensor, names: int, choices: Sequence[int]) -> dict[int, Share]:
    """Accuracy for each number of choices, with its interval; arguments as for `first_among`."""
    found = {}
    for count in choices:
        value = first_among(ranks, names, count).mean().item()
        found[count] = Share(value, *interval(value, len(ranks)))
    return found
