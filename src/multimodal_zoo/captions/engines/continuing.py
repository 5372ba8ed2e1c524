"""Greedy continuations of many prompts at once: what all begin with is read once, and rows that end leave the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_zoo.captions.engines.continuation import Continuation, Ending
from multimodal_zoo.captions.engines.stopping import RETRY_TEMPERATURE
from multimodal_zoo.generation.loop import Decoder, Reader
from multimodal_zoo.generation.prompts import left_padded
from multimodal_zoo.nn.cache import KVCache

#: Beginnings are read in whole multiples of so many tokens, so that a chance word that a batch has in common does not
#: make another one.
STEP = 16
#: Beginnings that are kept: that of the template, and one of a batch that is unlike the others.
KEPT = 2
#: Rows leave a batch once so large a share of it has ended: each time what is kept of the others is copied.
LEAVE = 0.25


def common_beginning(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with, at least one of each left to be read, in whole multiples of `STEP`."""
    if not rows:
        return 0
    low, high = min(rows), max(rows)  # what the first and the last in order have in common, all have
    most = max(0, min(len(row) for row in rows) - 1)
    same = next((place for place in range(most) if low[place] != high[place]), most)
    return same // STEP * STEP


class Beginnings:
    """Keys and values of what prompts begin with, kept from batch to batch.

    A beginning is always read whole, as one row, so that it does not depend on what was asked before.

    Args:
        decoder: the model.

    Attributes:
        read: tokens of beginnings that were read so far.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.read = decoder, 0
        self._kept: dict[tuple[int, ...], KVCache] = {}

    def of(self, ids: Sequence[int], device: torch.device) -> KVCache:
        """The cache of one row that has read these ids."""
        key = tuple(ids)
        found = self._kept.pop(key, None)
        if found is None:
            found = self.decoder.cache(1, len(key))
            last = torch.full((1, 1), len(key) - 1, device=device)
            self.decoder(torch.tensor([key], device=device), cache=found, places=last)
            self.read += len(key)
        self._kept[key] = found  # the last one used stands last
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]
        return found


def begun(decoder: Decoder, rows: Sequence[list[int]], more: int, beginnings: Beginnings | None = None) -> Reader:
    """Prompts that were read, as a batch that goes on.

    Args:
        decoder: the model, in evaluation mode.
        rows: prompts, none of them empty.
        more: tokens that will be read behind them.
        beginnings: what prompts began with before; None reads every row whole.

    Raises:
        ValueError: more tokens than the decoder has positions, or an empty prompt.
    """
    device = _device(decoder)
    known = common_beginning(rows) if beginnings is not None else 0
    beginning = beginnings.of(rows[0][:known], device) if beginnings is not None and known else None
    return Reader(decoder, left_padded([row[known:] for row in rows], 0).to(device), more, beginning)


def continue_greedily(
    decoder: Decoder,
    rows: Sequence[list[int]],
    ending: Ending,
    beginnings: Beginnings | None = None,
    seeds: Sequence[int] | None = None,
) -> list[Continuation]:
    """The likeliest continuation of each prompt, as each would have alone up to rounding; or one that is drawn.

    Args:
        decoder: the model, in evaluation mode; the caller switches gradients off.
        rows: prompts, none of them empty.
        ending: when a continuation is over.
        beginnings: what prompts began with before; None reads every row whole.
        seeds: for each row, what its tokens are drawn by at `RETRY_TEMPERATURE`; None takes the likeliest ones.

    Raises:
        ValueError: more tokens than the decoder has positions, or an empty prompt.
        TimeoutError: `ending.deadline` is over.
    """
    if not rows:
        return []
    batch = begun(decoder, rows, ending.limit - 1, beginnings)
    written: list[list[int]] = [[] for _ in rows]
    dice = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
    ended, alive = [False] * len(rows), list(range(len(rows)))  # the rows of the batch, ended ones among them
    for count in range(1, ending.limit + 1):
        ending.check_time()
        new = _chosen(decoder.head(batch.state), None if dice is None else [dice[number] for number in alive])
        for number, token in zip(alive, new, strict=True):
            if not ended[number]:
                ended[number] = ending.over(token, written[number])
        left = [place for place, number in enumerate(alive) if not ended[number]]
        if not left or count == ending.limit:
            break
        if len(left) <= (1 - LEAVE) * len(alive):
            batch.keep(torch.tensor(left, device=batch.state.device))
            alive, new = [alive[place] for place in left], [new[place] for place in left]
        batch.read(torch.tensor(new, device=batch.state.device)[:, None])
    return [Continuation(ids, over) for ids, over in zip(written, ended, strict=True)]


def _chosen(scores: Tensor, dice: Sequence[torch.Generator] | None) -> list[int]:
    """A token for each row of logits: the likeliest, or one drawn by the row's own dice."""
    if dice is None:
        likeliest: list[int] = scores.argmax(-1).tolist()
        return likeliest
    shares = (scores.cpu().double() / RETRY_TEMPERATURE).softmax(-1)  # not every accelerator has float64
    return [int(row.multinomial(1, generator=die)) for row, die in zip(shares, dice, strict=True)]


def _device(decoder: Decoder) -> torch.device:
    device = getattr(decoder, "device", None)
    if device is not None:
        return torch.device(device)
    return next(iter(decoder.parameters())).device  # type: ignore[attr-defined]
