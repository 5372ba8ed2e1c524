"""Checks of settings that many parts have: probabilities, and ranges with a lower and an upper end."""

from __future__ import annotations

from collections.abc import Sequence


def probability(value: float, key: str) -> float:
    """A number from 0 to 1.

    Args:
        value: the number.
        key: the configuration key, for errors.

    Raises:
        ValueError: another number.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{key} is {value}; expected a probability from 0 to 1")
    return value


def ends(pair: Sequence[float], key: str) -> tuple[float, float]:
    """The lower and the upper end of a range.

    Args:
        pair: both.
        key: the configuration key, for errors.

    Raises:
        ValueError: not two numbers, or a range that runs backwards.
    """
    if len(pair) != 2 or pair[0] > pair[1]:
        raise ValueError(f"{key} is {list(pair)}; expected the lower and the upper end")
    return pair[0], pair[1]
