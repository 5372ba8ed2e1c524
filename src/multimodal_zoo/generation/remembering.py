"""Reading on: what prompts have in common with each other and with what was read before is not read again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from multimodal_zoo.nn.cache import KVCache
from multimodal_zoo.nn.masks import Mask, Padding


class Remembering:
    """A decoder that keeps the keys and values of the last row, for conversations and for questions about one picture.

    A prompt of one row is compared with what was read before, prompt and answer; its beginning is copied from there as
    far as both agree. Of a batch, what all rows begin with is read once, and kept in the same way: examples in front of
    several questions (`PromptBatch.aligned` lays padded prompts out for it). The states are those of a whole reading up
    to rounding.

    Args:
        decoder: a causal decoder (`CausalDecoder`).

    Attributes:
        max_positions: most tokens of a row.
        read: tokens that the decoder has read so far.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.max_positions: int = decoder.max_positions
        self.read = 0
        self._states: Tensor | None = None  # (tokens, width), what was read, embedded
        self._vision: Tensor | None = None
        self._cache: KVCache | None = None

    def cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache, see `CausalDecoder`."""
        empty: KVCache = self.decoder.cache(batch, capacity)
        return empty

    def head(self, hidden: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """Logits, see `CausalDecoder`."""
        logits: Tensor = self.decoder.head(hidden, rows)
        return logits

    def __call__(
        self,
        inputs: Tensor,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        mask: Mask | None = None,
        places: Tensor | None = None,
        vision: Tensor | None = None,
    ) -> Tensor:
        """Hidden states, see `CausalDecoder`; of the last token alone where a row's beginning is known.

        Args:
            inputs: ids (batch, tokens) or embeddings (batch, tokens, width).
            cache: filled in place.
            positions: of padded batches.
            mask: as positions.
            places: the tokens whose states are wanted; they must not lie in what is known.
            vision: the tokens of pictures.
        """
        if cache is not None and len(inputs) > 1 and not len(cache) and places is not None:
            return self._together(inputs, cache, positions, mask, places, vision)
        if len(inputs) > 1 or cache is None or positions is not None or mask is not None:
            self.read += inputs.shape[0] * inputs.shape[1]
            found: Tensor = self.decoder(
                inputs, cache=cache, positions=positions, mask=mask, places=places, vision=vision
            )
            return found
        states = inputs if inputs.dim() == 3 else self.decoder.embed(inputs)
        kind = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device) if vision is None else vision
        known = 0 if len(cache) or places is None else min(self._common(states[0], kind[0]), int(places.min()))
        if known:
            self._copy(cache, known)
        self._keep(states[0], kind[0], cache, goes_on=len(cache) > known)
        self.read += states.shape[1] - known
        rest = None if vision is None else vision[:, known:]
        found = self.decoder(
            states[:, known:], cache=cache, places=None if places is None else places - known, vision=rest
        )
        return found

    def _together(
        self,
        inputs: Tensor,
        cache: KVCache,
        positions: Tensor | None,
        mask: Mask | None,
        places: Tensor,
        vision: Tensor | None,
    ) -> Tensor:
        """Read several prompts: their common beginning as one row, then what is left of each."""
        states = inputs if inputs.dim() == 3 else self.decoder.embed(inputs)
        kind = torch.zeros(states.shape[:2], dtype=torch.bool, device=states.device) if vision is None else vision
        same = (states == states[:1]).all(2).all(0) & (kind == kind[:1]).all(0)
        if isinstance(mask, Padding) and mask.real.dtype == torch.bool:
            same &= mask.real.all(0)
        elif mask is not None:
            same &= False
        known = min(int(same.long().cumprod(0).sum()), int(places.min()))
        if known:
            first = self.decoder.cache(1, known)
            last = torch.full((1, 1), known - 1, device=states.device)
            self(states[:1, :known], cache=first, places=last, vision=None if vision is None else vision[:1, :known])
            cache.block[..., :known, :] = first.block  # one row for all
            for layer in cache.layers:
                layer.length = known
        self.read += len(states) * (states.shape[1] - known)
        found: Tensor = self.decoder(
            states[:, known:],
            cache=cache,
            positions=None if positions is None else positions[:, known:],
            mask=mask,
            places=places - known,
            vision=None if vision is None else vision[:, known:],
        )
        return found

    def _common(self, states: Tensor, vision: Tensor) -> int:
        """How many tokens a row has in common with what was read."""
        if self._states is None or self._vision is None or self._cache is None:
            return 0
        count = min(len(states), len(self._states), len(self._cache))
        same = (states[:count] == self._states[:count]).all(1) & (vision[:count] == self._vision[:count])
        return int(same.long().cumprod(0).sum())

    def _copy(self, cache: KVCache, known: int) -> None:
        assert self._cache is not None
        cache.block[..., :known, :] = self._cache.block[..., :known, :]
        for layer in cache.layers:
            layer.length = known

    def _keep(self, states: Tensor, vision: Tensor, cache: KVCache, goes_on: bool) -> None:
        """Note what is being read, behind what the cache holds already or from the front."""
        if goes_on and self._states is not None and self._vision is not None:
            before = len(cache)
            states, vision = (
                torch.cat([old[:before], new]) for old, new in ((self._states, states), (self._vision, vision))
            )
        self._states, self._vision, self._cache = states, vision, cache
