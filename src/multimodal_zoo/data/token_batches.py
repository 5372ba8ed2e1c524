"""Token samples to batches: each in a row of its own, or several in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from multimodal_zoo.data.token_sequences import TokenSample
from multimodal_zoo.objectives.batch import TokenBatch


class Sample(Protocol):
    """What rows are made of: `TokenSample` and its like."""

    @property
    def ids(self) -> Tensor:
        """Long (tokens,)."""
        ...

    @property
    def weights(self) -> Tensor:
        """Float32 (tokens,)."""
        ...

    @property
    def key(self) -> str:
        """The document's name."""
        ...


def joined_rows(rows: Sequence[Sequence[Tensor]], width: int, fill: float, dtype: torch.dtype) -> Tensor:
    """Values (tokens,) of the samples of each row, one behind the other: (rows, width).

    Args:
        rows: the values of each row's samples.
        width: of the rows.
        fill: stands behind them.
        dtype: of the result.
    """
    found = torch.full((len(rows), width), fill, dtype=dtype)
    for place, row in enumerate(rows):
        joint = torch.cat(list(row)) if row else found[place, :0]
        found[place, : len(joint)] = joint
    return found


def rows_batch(rows: Sequence[Sequence[Sample]], pad_id: int, length: int | None = None) -> TokenBatch:
    """A batch of rows, each of some samples one behind the other, filled up on the right.

    Args:
        rows: the samples of each row.
        pad_id: stands at padding.
        length: tokens of every row; None: of the longest.

    Raises:
        ValueError: no row, or one that is longer than `length`.
    """
    if not rows:
        raise ValueError("a batch of tokens needs at least one row")
    sizes = [sum(len(sample.ids) for sample in row) for row in rows]
    width = max(sizes) if length is None else length
    if max(sizes) > width:
        raise ValueError(f"a row has {max(sizes)} tokens; rows of {width} were asked for")
    numbers = [[torch.full_like(sample.ids, number) for number, sample in enumerate(row)] for row in rows]
    places = [[torch.arange(len(sample.ids)) for sample in row] for row in rows]
    return TokenBatch(
        ids=joined_rows([[sample.ids for sample in row] for row in rows], width, pad_id, torch.long),
        weights=joined_rows([[sample.weights for sample in row] for row in rows], width, 0, torch.float32),
        documents=joined_rows(numbers, width, -1, torch.long),
        positions=joined_rows(places, width, 0, torch.long),
        keys=[sample.key for row in rows for sample in row],
    )


def padded_batch(samples: Sequence[TokenSample], pad_id: int, length: int | None = None) -> TokenBatch:
    """A batch with one sample in each row; see `rows_batch`."""
    return rows_batch([[sample] for sample in samples], pad_id, length)


def fit(lengths: Sequence[int], first: int, rows: int, room: int) -> tuple[list[list[int]], list[int]]:
    """Distribute samples over rows: the first ones as they come, the others from the longest on, each where it fits.

    Args:
        lengths: tokens of each sample, at most `room`.
        first: how many at the front are served before the others; they have waited.
        rows: number of rows.
        room: tokens in a row.

    Returns:
        the samples of each row, and those that fit nowhere, in their order.
    """
    order = [*range(first), *sorted(range(first, len(lengths)), key=lambda i: -lengths[i])]
    left, placed, over = [room] * rows, [[] for _ in range(rows)], []  # type: ignore[var-annotated]
    for i in order:
        row = next((row for row in range(rows) if lengths[i] <= left[row]), None)
        if row is None:
            over.append(i)
            continue
        placed[row].append(i)
        left[row] -= lengths[i]
    return placed, sorted(over)
