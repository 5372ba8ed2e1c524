"""The key-value cache of a causal decoder: one preallocated block, filled in place."""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """The share of one layer: views into the cache's block.

    Args:
        keys: `(batch, kv_heads, capacity, head_dim)`.
        values: the same shape.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values, self.length = keys, values, 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new tokens and return all stored so far, without a copy.

        Args:
            key: `(batch, kv_heads, tokens, head_dim)`.
            value: the same shape.

        Raises:
            ValueError: a shape that does not fit, or more tokens than the capacity.
        """
        (batch, heads, tokens, width), (rows, kept, capacity, head_dim) = key.shape, self.keys.shape
        start, end = self.length, self.length + tokens
        if end > capacity:
            raise ValueError(f"KV cache holds {capacity} tokens, {end} are needed; give a larger capacity")
        if (batch, heads, width) != (rows, kept, head_dim):
            raise ValueError(
                f"KV cache of (batch, kv_heads, capacity, head_dim) {tuple(self.keys.shape)} cannot take "
                f"{tuple(key.shape)}"
            )
        self.keys.narrow(2, start, tokens).copy_(key)
        self.values.narrow(2, start, tokens).copy_(value)
        self.length = end
        return self.keys.narrow(2, 0, end), self.values.narrow(2, 0, end)


class KVCache:
    """Keys and values of every layer, allocated once. For inference: gradients do not flow through it.

    Args:
        layers: number of blocks.
        batch: number of rows.
        kv_heads: key-value heads per block.
        capacity: most tokens per row.
        head_dim: width of a head.
        device: where the block lives.
        dtype: its element type.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_dim: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.block = torch.zeros(2, layers, batch, kv_heads, capacity, head_dim, device=device, dtype=dtype)
        self.layers = [LayerCache(self.block[0, i], self.block[1, i]) for i in range(layers)]

    def __len__(self) -> int:
        """Tokens stored per row, the `offset` of the next call's `Causal` mask."""
        return self.layers[0].length

    def reset(self) -> None:
        """Forget everything; the memory is kept."""
        for layer in self.layers:
            layer.length = 0

    def shuffle(self, rows: Tensor, start: int) -> None:
        """Put rows in another order, from a token on; what is before it stays where it is.

        Args:
            rows: long (batch,), the row that each becomes; rows may come twice.
            start: number of the first token that moves along.
        """
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().flatten()
        part = self.block.narrow(-2, start, len(self) - start)
        part.index_copy_(2, moved, part.index_select(2, rows[moved]))

    def taken(self, rows: Tensor, capacity: int) -> KVCache:
        """A cache of some rows, with what they hold, and of another capacity.

        Args:
            rows: long (n,), the row of this cache that each row of the new one begins as; repeated rows are copied.
            capacity: most tokens per row of the new one.

        Raises:
            ValueError: less capacity than is filled.
        """
        filled = len(self)
        if capacity < filled:
            raise ValueError(f"KV cache holds {filled} tokens per row; a capacity of {capacity} is too little")
        _, layers, _, kv_heads, _, head_dim = self.block.shape
        new = KVCache(layers, len(rows), kv_heads, capacity, head_dim, self.block.device, self.block.dtype)
        new.block[..., :filled, :] = self.block[:, :, rows, :, :filled]
        for layer in new.layers:
            layer.length = filled
        return new
