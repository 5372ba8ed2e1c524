"""Several texts in one row, so that short texts do not pay for the longest."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Packing(NamedTuple):
    """Where the tokens of a padded batch of texts stand in fewer, fuller rows.

    Attributes:
        source: `(rows, length)`, index of each token in the flattened batch; 0 where a row is not full.
        places: `(rows, length)`, place of each token in its text.
        texts: `(rows, length)`, number of the text that a token belongs to; -1 where a row is not full.
        last: `(rows, most)`, where the last token of each text of a row is; 0 behind a row's last text.
        order: `(texts,)`, where each text is in the flattened `last`.
    """

    source: Tensor
    places: Tensor
    texts: Tensor
    last: Tensor
    order: Tensor


def spread(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Distribute texts evenly over the fewest rows of about `room` tokens; gives the numbers of each row's texts."""
    rows: list[list[int]] = [[] for _ in range(-(-sum(lengths) // room))]
    loads = [(0, row) for row in range(len(rows))]
    for text in sorted(range(len(lengths)), key=lambda text: -lengths[text]):
        load, row = heapq.heappop(loads)
        rows[row].append(text)
        heapq.heappush(loads, (load + lengths[text], row))
    return [row for row in rows if row]


def pack_texts(lengths: Sequence[int], stride: int, room: int) -> Packing:
    """Pack the first tokens of padded texts.

    Args:
        lengths: how many tokens of each text count, at least one.
        stride: tokens of a padded text.
        room: about how many tokens a row may have.
    """
    rows = spread(lengths, room)
    length, most = max(sum(lengths[text] for text in row) for row in rows), max(map(len, rows))
    source, places, last = (torch.zeros(len(rows), size, dtype=torch.long) for size in (length, length, most))
    texts, order = torch.full((len(rows), length), -1), torch.zeros(len(lengths), dtype=torch.long)
    for i, row in enumerate(rows):
        start = 0
        for j, text in enumerate(row):
            end = start + lengths[text]
            source[i, start:end] = torch.arange(text * stride, text * stride + lengths[text])
            places[i, start:end] = torch.arange(lengths[text])
            texts[i, start:end] = text
            last[i, j], order[text] = end - 1, i * most + j
            start = end
    return Packing(source, places, texts, last, order)


def locate(packing: Packing, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where chosen tokens of a padded batch stand in packed rows.

    Args:
        packing: of the batch.
        wanted: `(batch, tokens)` bool, among the tokens that were packed.

    Returns:
        `(rows, most)`, the chosen places of each row, 0 behind a row's last one; and `(chosen,)`, where each chosen
        token, text by text, is in the flattened first.
    """
    held = (packing.texts >= 0) & wanted[packing.texts.clamp_min(0), packing.places]
    rows, places = held.nonzero(as_tuple=True)
    counts = held.sum(1)
    slots = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]
    found = torch.zeros(len(held), int(counts.max()), dtype=torch.long)
    found[rows, slots] = places
    order = (packing.texts[rows, places] * wanted.shape[1] + packing.places[rows, places]).argsort()
    return found, (rows * found.shape[1] + slots)[order]
