"""The key-value cache as a table of tokens."""

from __future__ import annotations

import pytest
import torch

from multimodal_zoo.nn.cache import KVCache


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0, 0], [0, 0, 2], [1, 1, 1]])
def test_rows_move_behind_the_start_alone(rows: list[int]) -> None:
    cache = KVCache(layers=2, batch=3, kv_heads=2, capacity=6, head_dim=4)
    for layer in cache.layers:
        layer.append(torch.randn(3, 2, 5, 4), torch.randn(3, 2, 5, 4))
    before = cache.block.clone()
    cache.shuffle(torch.tensor(rows), start=2)
    assert torch.equal(cache.block[..., :2, :], before[..., :2, :])
    assert torch.equal(cache.block[..., 2:, :], before[:, :, rows, :, 2:])


def test_what_does_not_fit_is_refused() -> None:
    (layer,) = KVCache(layers=1, batch=2, kv_heads=1, capacity=3, head_dim=4).layers
    with pytest.raises(ValueError, match=r"holds 3 tokens, 4 are needed"):
        layer.append(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match="cannot take"):
        layer.append(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))
    assert layer.length == 0
