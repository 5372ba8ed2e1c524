"""Greedy continuations of many prompts at once: what all begin with is read once, and rows that end leave the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_zoo.captions.engines.continuation import Continuation, Ending
from multimodal_zoo.captions.engines.stopping import RETRY_TEMPERATURE
from multimodal_zoo.generation.loop import Decoder
from multimodal_zoo.nn.cache import KVCache
from multimodal_zoo.nn.masks import Padding

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
    most = min(len(row) for row in rows) - 1
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


class Batch:
    """Rows under way, each with its own positions behind one beginning; padding stands between the two.

    Args:
        decoder: the model, in evaluation mode.
        rows: prompts, none of them empty.
        more: tokens that will be read behind them.
        beginnings: what prompts began with before; None reads every row whole.

    Attributes:
        state: hidden states `(rows, width)` of the last token of each row.
        start: columns of the prompts, padding among them.

    Raises:
        ValueError: more tokens than the decoder has positions, or an empty prompt.
    """

    def __init__(
        self, decoder: Decoder, rows: Sequence[list[int]], more: int, beginnings: Beginnings | None = None
    ) -> None:
        _check(decoder, rows, more)
        known = common_beginning(rows) if beginnings is not None else 0
        beginning = beginnings.of(rows[0][:known], _device(decoder)) if beginnings is not None and known else None
        self._begin(decoder, beginning, [row[known:] for row in rows], more)

    def _begin(self, decoder: Decoder, beginning: KVCache | None, rows: Sequence[list[int]], more: int) -> None:
        self.decoder = decoder
        known, tokens, device = 0 if beginning is None else len(beginning), max(map(len, rows)), _device(decoder)
        lengths = torch.tensor([len(row) for row in rows], device=device)
        ids = torch.tensor([[0] * (tokens - len(row)) + list(row) for row in rows], device=device)
        self.real = torch.ones(len(rows), known + tokens + more, dtype=torch.bool, device=device)
        self.real[:, known : known + tokens] = torch.arange(tokens, device=device) >= tokens - lengths[:, None]
        self.padded = bool((lengths < tokens).any())
        every = torch.zeros(len(rows), dtype=torch.long, device=device)
        capacity = known + tokens + more
        self.cache = decoder.cache(len(rows), capacity) if beginning is None else beginning.taken(every, capacity)
        positions = (self.real[:, : known + tokens].long().cumsum(1) - 1).clamp_(min=0)[:, known:]
        self.next = positions[:, -1:] + 1
        last = torch.full((len(rows), 1), tokens - 1, device=device)
        self.state = self._call(ids, positions, last)
        self.start = known + tokens

    def _call(self, ids: Tensor, positions: Tensor, last: Tensor | None) -> Tensor:
        seen = Padding(self.real[:, : len(self.cache) + ids.shape[1]]) if self.padded else None
        states = self.decoder(
            ids, cache=self.cache, positions=positions if self.padded else None, mask=seen, places=last
        )
        return states[:, -1]

    def scores(self) -> Tensor:
        """Logits `(rows, vocab_size)` of what follows each row, float32."""
        return self.decoder.head(self.state)

    def read(self, ids: Sequence[int]) -> None:
        """Go on with an id for each row."""
        self.state = self._call(torch.tensor(ids, device=self.next.device)[:, None], self.next, None)
        self.next = self.next + 1

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with some rows alone, or with some more than once."""
        chosen = torch.tensor(rows, device=self.next.device)
        self.cache = self.cache.taken(chosen, self.cache.block.shape[-2])
        self.real, self.next, self.state = self.real[chosen], self.next[chosen], self.state[chosen]

    def shuffle(self, rows: Sequence[int]) -> None:
        """Let each row go on from another one of the same prompt."""
        self.cache.shuffle(torch.tensor(rows, device=self.next.device), self.start)


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
    batch = Batch(decoder, rows, ending.limit - 1, beginnings)
    written: list[list[int]] = [[] for _ in rows]
    dice = None if seeds is None else [torch.Generator().manual_seed(seed) for seed in seeds]
    ended, alive = [False] * len(rows), list(range(len(rows)))  # the rows of the batch, ended ones among them
    for count in range(1, ending.limit + 1):
        ending.check_time()
        new = _chosen(batch.scores(), None if dice is None else [dice[number] for number in alive])
        for number, token in zip(alive, new, strict=True):
            if not ended[number]:
                ended[number] = ending.over(token, written[number])
        left = [place for place, number in enumerate(alive) if not ended[number]]
        if not left or count == ending.limit:
            break
        if len(left) <= (1 - LEAVE) * len(alive):
            batch.keep(left)
            alive, new = [alive[place] for place in left], [new[place] for place in left]
        batch.read(new)
    return [Continuation(ids, over) for ids, over in zip(written, ended, strict=True)]


def _chosen(scores: Tensor, dice: Sequence[torch.Generator] | None) -> list[int]:
    """A token for each row of logits: the likeliest, or one drawn by the row's own dice."""
    if dice is None:
        likeliest: list[int] = scores.argmax(-1).tolist()
        return likeliest
    shares = (scores.cpu().double() / RETRY_TEMPERATURE).softmax(-1)  # not every accelerator has float64
    return [int(row.multinomial(1, generator=die)) for row, die in zip(shares, dice, strict=True)]


def _check(decoder: Decoder, rows: Sequence[list[int]], more: int) -> None:
    shortest, longest = min(map(len, rows)), max(map(len, rows))
    if not shortest or longest + more > decoder.max_positions:
        raise ValueError(
            f"prompts of {shortest} to {longest} tokens and {more} more; expected 1 or more, {decoder.max_positions} "
            "in all at most"
        )


def _device(decoder: Decoder) -> torch.device:
    device = getattr(decoder, "device", None)
    if device is not None:
        return torch.device(device)
    return next(iter(decoder.parameters())).device  # type: ignore[attr-defined]
