"""Token samples to batches: each in a row of its own, or several in a row."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from multimodal_zoo.data.token_sequences import TokenSample
from multimodal_zoo.objectives.batch import TokenBatch


def rows_batch(rows: Sequence[Sequence[TokenSample]], pad_id: int, length: int | None = None) -> TokenBatch:
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
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    weights, documents, positions = torch.zeros(ids.shape), torch.full_like(ids, -1), torch.zeros_like(ids)
    for i, row in enumerate(rows):
        start = 0
        for number, sample in enumerate(row):
            part = slice(start, start + len(sample.ids))
            ids[i, part], weights[i, part] = sample.ids, sample.weights
            documents[i, part], positions[i, part] = number, torch.arange(len(sample.ids))
            start = part.stop
    return TokenBatch(ids, weights, documents, positions, [sample.key for row in rows for sample in row])


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
