"""Causal language models of transformers behind the decoding loops of this library, over one cache filled in place."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from multimodal_zoo.nn.cache import KVCache, LayerCache
from multimodal_zoo.nn.masks import Mask, Padding

#: How far scores of a beginning read once may lie from those of the whole: relative to the largest, by type.
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


class TransformersDecoder:
    """A model of transformers as a `generation.loop.Decoder`; its "hidden states" are scores of the last token.

    Only for models whose layers all keep a key and a value of one size for every token, and take positions and a mask
    of two dimensions. Twelve tokens are read in two ways to see that.

    Args:
        model: a causal language model, in evaluation mode.

    Raises:
        ValueError: another model; the message says what it does otherwise.
    """

    def __init__(self, model: Any) -> None:
        self.model, self.device = model, model.device
        self.max_positions = positions_of(model)
        accepted = inspect.signature(model.forward).parameters
        self._cache_word = "cache" if "cache" in accepted else "past_key_values"
        self._short = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        if "position_ids" not in accepted or self._cache_word not in accepted:
            raise ValueError(f"{type(model).__name__} takes no position_ids or no cache")
        self._sizes = self._layer_sizes()
        if problem := self._differs():
            raise ValueError(problem)

    def cache(self, batch: int, capacity: int) -> KVCache:
        """An empty cache for `batch` rows of at most `capacity` tokens."""
        layers, heads, width, dtype = self._sizes
        return KVCache(layers, batch, heads, capacity, width, self.device, dtype)

    def head(self, hidden: Tensor, rows: slice | Tensor | None = None) -> Tensor:
        """The scores themselves, float32, of all ids or of some."""
        return (hidden if rows is None else hidden[..., rows]).float()

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
        """Scores `(batch, 1, vocab_size)` behind the last column of ids `(batch, tokens)`.

        Args:
            inputs: long ids.
            cache: filled in place.
            positions: `(batch, tokens)`; None counts on from the cache.
            mask: `Padding` of all columns up to here, or None.
            places: the last column, or None.
            vision: None: these models read text.
        """
        del places, vision
        batch, tokens = inputs.shape
        before = 0 if cache is None else len(cache)
        if positions is None:
            positions = torch.arange(before, before + tokens, device=inputs.device).expand(batch, -1)
        real = mask.real if isinstance(mask, Padding) else None
        if real is None:
            real = torch.ones(batch, before + tokens, dtype=torch.bool, device=inputs.device)
        kept = self.cache(batch, tokens) if cache is None else cache
        wanted = {self._cache_word: _as_theirs(kept), "position_ids": positions, **self._short}
        out = self.model(input_ids=inputs, attention_mask=real.long(), use_cache=True, **wanted)
        scores: Tensor = out.logits[:, -1:]
        return scores

    def _layer_sizes(self) -> tuple[int, int, int, torch.dtype]:
        """Layers, key-value heads, width of a head and type, from one token read.

        Raises:
            ValueError: layers that keep something else.
        """
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        kept, token = DynamicCache(config=self.model.config), torch.zeros(1, 1, dtype=torch.long, device=self.device)
        if any(type(layer) is not DynamicLayer for layer in kept.layers):
            kinds = ", ".join(sorted({type(layer).__name__ for layer in kept.layers}))
            raise ValueError(f"{type(self.model).__name__} keeps its past as {kinds}")
        with torch.no_grad():
            self.model(input_ids=token, use_cache=True, **{self._cache_word: kept})
        states = [state for layer in kept.layers for state in (layer.keys, layer.values)]
        if not states or any(state is None or state.dim() != 4 or state.shape[2] != 1 for state in states):
            raise ValueError(f"{type(self.model).__name__} keeps no key and value of each token")
        if len({(state.shape, state.dtype) for state in states}) > 1:
            raise ValueError(f"{type(self.model).__name__} keeps keys and values of several sizes")
        return len(kept.layers), states[0].shape[1], states[0].shape[3], states[0].dtype

    def _differs(self) -> str:
        """Why a beginning read once, with padding behind it, would change answers; empty where it does not."""
        ids = torch.arange(12, device=self.device)[None] % int(self.model.get_input_embeddings().weight.shape[0])
        with torch.no_grad():
            whole = self.model(input_ids=ids).logits[0, -1].float()
            cache = self.cache(1, 16)
            self(ids[:, :5], cache=cache)
            padded = torch.cat([ids[:, :3], ids[:, 5:11]], 1)  # three columns of padding behind the beginning
            real = torch.ones(1, 14, dtype=torch.bool, device=self.device)
            real[:, 5:8] = False
            positions = (real.long().cumsum(1) - 1)[:, 5:]
            self(padded, cache=cache, positions=positions, mask=Padding(real))
            last = torch.full((1, 1), 11, device=self.device)
            real = torch.cat([real, real[:, :1]], 1)
            found = self(ids[:, 11:], cache=cache, positions=last, mask=Padding(real))[0, 0].float()
        off = float((found - whole).abs().max() / whole.abs().max().clamp(min=1e-6))
        if off <= CLOSE.get(self.model.dtype, 0.1):
            return ""
        return f"{type(self.model).__name__} reads padding inside a text: its scores move by {off:.1g}"


def positions_of(model: Any) -> int:
    """Most tokens of a sequence; a large number where the model sets no limit."""
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int) and limit > 0 else 1 << 30


def decoder_of(model: Any) -> TransformersDecoder | str:
    """A model as a decoder over a cache of ours, or why it cannot be one."""
    if not isinstance(model, nn.Module):
        return "it is no module"
    try:
        return TransformersDecoder(model)
    except (ValueError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        return str(error) or type(error).__name__


@functools.cache
def _kept_layer() -> Any:
    """The class of a cache layer of transformers that is one of ours."""
    from transformers.cache_utils import DynamicLayer

    class Kept(DynamicLayer):
        """A layer that is filled in place."""

        def __init__(self, layer: LayerCache) -> None:
            super().__init__()
            self.layer, self.is_initialized = layer, True
            self.keys, self.values = layer.keys, layer.values

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            """Keys and values of all tokens so far."""
            return self.layer.append(key_states, value_states)

        def get_seq_length(self, *_: Any) -> int:
            """Tokens so far."""
            return self.layer.length

    return Kept


def _as_theirs(cache: KVCache) -> Any:
    """A cache of transformers whose layers are those of ours."""
    from transformers.cache_utils import Cache

    return Cache(layers=[_kept_layer()(layer) for layer in cache.layers])
