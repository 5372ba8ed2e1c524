"""Few queries over cached keys: the same as all at once, without a copy of the keys."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.nn import kernels
from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.masks import Bias, Causal, Padding, dense, resolve

KEYS = 11
REAL = torch.tensor([[True] * KEYS, [False] * 4 + [True] * (KEYS - 4)])
CPU = torch.device("cpu")


def biases(heads: int, queries: int) -> Bias:
    return Bias(torch.randn(1, heads, queries, KEYS, dtype=torch.float64))


@pytest.mark.parametrize("queries", [1, 2, 5])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", ["causal", "padded", "bias of each head", "bias of a query", "one bias"])
def test_few_queries_are_the_definition(queries: int, kv_heads: int, kind: str) -> None:
    query = torch.randn(2, 4, queries, 8, dtype=torch.float64)
    key, value = (torch.randn(2, kv_heads, KEYS, 8, dtype=torch.float64) for _ in range(2))
    mask = {
        "causal": lambda: Causal(KEYS - queries),
        "padded": lambda: Causal(KEYS - queries) & Padding(REAL),
        "bias of each head": lambda: Padding(REAL) & biases(4, 1),
        "bias of a query": lambda: biases(4, queries) & Padding(REAL),
        "one bias": lambda: Bias(torch.randn(queries, KEYS, dtype=torch.float64)),
    }[kind]()
    expected = attend(query, key, value, mask=mask, kernel="math")
    assert_close(attend(query, key, value, mask=mask), expected)
    assert_close(attend(query, key, value, mask=resolve(mask, queries, KEYS, CPU)), expected)


def test_no_key_is_copied(monkeypatch) -> None:
    key, value = (torch.randn(2, 2, 64, 8)[:, :, :KEYS] for _ in range(2))
    seen = []
    real = kernels.F.scaled_dot_product_attention

    def spy(query, key, value, **options):
        seen.append((query.shape, key.data_ptr(), value.data_ptr()))
        return real(query, key, value, **options)

    monkeypatch.setattr(kernels.F, "scaled_dot_product_attention", spy)
    attend(torch.randn(2, 8, 1, 8), key, value, mask=Causal(KEYS - 1) & Padding(REAL))
    assert seen == [((2, 2, 4, 8), key.data_ptr(), value.data_ptr())]


def test_a_resolved_mask_keeps_rows_without_keys_empty() -> None:
    mask = Padding(torch.tensor([[True] * KEYS, [False] * KEYS]))
    query, key, value = torch.randn(2, 4, 1, 8), torch.randn(2, 2, KEYS, 8), torch.randn(2, 2, KEYS, 8)
    known = resolve(mask, 1, KEYS, CPU)
    assert known.tensors.alive is not None
    assert attend(query, key, value, mask=known)[1].abs().max() == 0
    assert resolve(Padding(REAL), 1, KEYS, CPU).tensors.alive is None  # nothing to zero
    assert dense(known, 1, KEYS, CPU) is known.tensors
    assert known.bias() is None
