"""From tokens to queries, keys and values: packed or separate weights, with the bias patterns that were published.

Each part takes tokens `(batch, tokens, width)` and gives queries `(batch, heads, tokens, head_dim)` and keys and values
`(batch, kv_heads, tokens, head_dim)`, as views where the layout allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from multimodal_zoo.nn.joined import Joined
from multimodal_zoo.nn.linear import LinearLayer
from multimodal_zoo.nn.masks import pick
from multimodal_zoo.registry import ENCODERS


def _check_heads(heads: int, kv_heads: int) -> None:
    if heads % kv_heads:
        raise ValueError(f"heads {heads} is not a multiple of kv_heads {kv_heads}; change heads or kv_heads of qkv")


def project(
    tokens: Tensor, weight: Tensor, bias: Tensor | None, heads: tuple[int, int], places: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply a packed matrix and cut the result into queries, keys and values, without a copy.

    Args:
        tokens: `(batch, tokens, width)`.
        weight: `((heads + 2 kv_heads) * head_dim, width)`.
        bias: of as many rows, or None.
        heads: query heads and key-value heads.
        places: `(batch, n)`, the tokens whose queries are wanted; None for all.
    """
    asked, kept = heads
    if places is None:
        rows = F.linear(tokens, weight, bias).unflatten(-1, (asked + 2 * kept, -1)).transpose(1, 2)
        query, key, value = rows.split((asked, kept, kept), dim=1)
        return query, key, value
    cut = weight.shape[0] // (asked + 2 * kept) * asked
    first, rest = (None, None) if bias is None else (bias[:cut], bias[cut:])
    query = F.linear(pick(tokens, places), weight[:cut], first).unflatten(-1, (asked, -1)).transpose(1, 2)
    both = F.linear(tokens, weight[cut:], rest).unflatten(-1, (2 * kept, -1)).transpose(1, 2)
    key, value = both.chunk(2, dim=1)
    return query, key, value


@ENCODERS.register_module(name="packed_qkv")
class PackedProjection(nn.Linear):
    """One matrix for all three, its rows in the order query, key, value; the bias, if any, covers all.

    Args:
        width: width of the tokens.
        heads: query heads.
        head_dim: width of a head.
        kv_heads: key-value heads; equal to `heads` unless queries are grouped.
        bias: whether the layer has a bias.
    """

    def __init__(self, width: int, heads: int, head_dim: int, kv_heads: int, bias: bool) -> None:
        _check_heads(heads, kv_heads)
        super().__init__(width, (heads + 2 * kv_heads) * head_dim, bias)
        self.width, self.heads, self.head_dim, self.kv_heads = width, heads, head_dim, kv_heads

    def reset_parameters(self) -> None:
        """Glorot uniform weights over all three, as torch's own attention does, and zero bias."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of tokens `(batch, tokens, width)`, and the queries at `places` or of all."""
        return project(tokens, self.weight, self.bias, (self.heads, self.kv_heads), places)


@ENCODERS.register_module(name="packed_qkv_keyless")
class KeylessBiasProjection(nn.Module):
    """One matrix for all three; queries and values have a bias (BEiT, EVA).

    Keys have none: softmax would cancel it.

    Args:
        width: width of the tokens.
        heads: heads.
        head_dim: width of a head.
    """

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.width, self.heads, self.head_dim, self.kv_heads = width, heads, head_dim, heads
        self.weight = nn.Parameter(torch.empty(3 * heads * head_dim, width))
        self.q_bias = nn.Parameter(torch.empty(heads * head_dim))
        self.v_bias = nn.Parameter(torch.empty(heads * head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot uniform weights over all three, as torch's own attention does, and zero biases."""
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.q_bias)
        nn.init.zeros_(self.v_bias)

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of tokens `(batch, tokens, width)`, and the queries at `places` or of all."""
        bias = torch.cat((self.q_bias, torch.zeros_like(self.q_bias), self.v_bias))
        return project(tokens, self.weight, bias, (self.heads, self.kv_heads), places)


@ENCODERS.register_module(name="separate_qkv")
class SeparateProjection(nn.Module):
    """Three matrices, each with or without a bias.

    Args:
        width: width of the tokens.
        heads: query heads.
        head_dim: width of a head.
        kv_heads: key-value heads; equal to `heads` unless queries are grouped.
        biased: which of `query`, `key`, `value` have a bias: none in LLaMA, all in Qwen2, query and value in EVA-02.
    """

    joined: Joined | None = None

    def __init__(self, width: int, heads: int, head_dim: int, kv_heads: int, biased: Sequence[str]) -> None:
        super().__init__()
        _check_heads(heads, kv_heads)
        if unknown := set(biased) - {"query", "key", "value"}:
            raise ValueError(f"qkv.biased names {sorted(unknown)}; it takes query, key, value")
        self.width, self.heads, self.head_dim, self.kv_heads = width, heads, head_dim, kv_heads
        self.query = LinearLayer(width, heads * head_dim, "query" in biased)
        self.key = LinearLayer(width, kv_heads * head_dim, "key" in biased)
        self.value = LinearLayer(width, kv_heads * head_dim, "value" in biased)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform weights of variance `1 / (3 width)` and zero biases."""
        for layer in (self.query, self.key, self.value):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def together(self) -> tuple[nn.Module, ...]:
        """The layers that read the same."""
        return self.query, self.key, self.value

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of tokens `(batch, tokens, width)`, and the queries at `places` or of all."""
        if self.joined is not None and places is None:
            rows = self.joined(tokens).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            query, key, value = rows.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
            return query, key, value
        query, key, value = (
            layer(source).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for layer, source in ((self.query, pick(tokens, places)), (self.key, tokens), (self.value, tokens))
        )
        return query, key, value


@ENCODERS.register_module(name="separate_qkv_keyless")
class SeparateKeylessProjection(nn.Module):
    """Three matrices without biases of their own, and the two biases of `packed_qkv_keyless` (EVA-02 with sub-LN).

    Args:
        width: width of the tokens.
        heads: heads.
        head_dim: width of a head.
    """

    def __init__(self, width: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.width, self.heads, self.head_dim, self.kv_heads = width, heads, head_dim, heads
        self.query = LinearLayer(width, heads * head_dim, bias=False)
        self.key = LinearLayer(width, heads * head_dim, bias=False)
        self.value = LinearLayer(width, heads * head_dim, bias=False)
        self.q_bias = nn.Parameter(torch.empty(heads * head_dim))
        self.v_bias = nn.Parameter(torch.empty(heads * head_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform weights of variance `1 / (3 width)` and zero biases."""
        for layer in (self.query, self.key, self.value):
            layer.reset_parameters()
        nn.init.zeros_(self.q_bias)
        nn.init.zeros_(self.v_bias)

    def forward(self, tokens: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Keys and values of tokens `(batch, tokens, width)`, and the queries at `places` or of all."""
        query, key, value = (
            F.linear(source, weight, bias).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
            for source, weight, bias in (
                (pick(tokens, places), self.query.weight, self.q_bias),
                (tokens, self.key.weight, None),
                (tokens, self.value.weight, self.v_bias),
            )
        )
        return query, key, value
