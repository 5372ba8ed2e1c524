"""Layers that read the same are one product within a decoding step, and themselves again behind it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.nn import joined as module
from multimodal_zoo.nn.joined import join, joined_layers
from multimodal_zoo.nn.linear import LinearLayer
from multimodal_zoo.nn.low_rank import AdaptedLinear, LowRank
from multimodal_zoo.nn.mlp import SwiGLU
from multimodal_zoo.nn.projections import SeparateProjection


@pytest.mark.parametrize("biased", [(), ("query", "key", "value"), ("query", "value")])
@torch.no_grad()
def test_queries_keys_and_values_are_the_same(biased) -> None:
    layer, tokens = SeparateProjection(12, heads=4, head_dim=3, kv_heads=2, biased=biased), torch.randn(2, 5, 12)
    for name in biased:
        nn.init.normal_(getattr(layer, name).bias)
    alone, places = layer(tokens), torch.tensor([[4], [2]])
    chosen = layer(tokens, places)
    with joined_layers([layer]):
        assert (layer.joined is None) == (len(biased) == 2)  # a bias for some of them only
        for found, expected in zip(layer(tokens), alone, strict=True):
            assert_close(found, expected)
        assert_close(layer(tokens, places), chosen)
    assert layer.joined is None


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_gated_mlp_is_the_same(bias) -> None:
    mlp, tokens = SwiGLU(6, 10, bias), torch.randn(3, 1, 6)
    alone, names = mlp(tokens), list(mlp.state_dict())
    with joined_layers([mlp]):
        assert mlp.joined is not None
        assert list(mlp.state_dict()) == names
        assert_close(mlp(tokens), alone)


@torch.no_grad()
def test_changed_weights_are_read_anew() -> None:
    mlp, tokens = SwiGLU(6, 10, bias=False), torch.randn(1, 6)
    with joined_layers([mlp]):
        mlp(tokens)
    mlp.gate.weight.data.mul_(2)
    alone = mlp(tokens)
    with joined_layers([mlp]):
        assert_close(mlp(tokens), alone)


def test_an_error_leaves_nothing_joined() -> None:
    mlp = SwiGLU(6, 10, bias=False)
    with pytest.raises(KeyError), joined_layers([mlp]):
        raise KeyError
    assert mlp.joined is None


def test_only_small_plain_layers_without_hooks_are_joined(monkeypatch) -> None:
    def pair() -> list[nn.Module]:
        return [LinearLayer(6, 4, bias=False), LinearLayer(6, 5, bias=False)]

    assert join(pair()) is not None
    hooked = pair()
    hooked[1].register_forward_hook(lambda *_: None)
    assert join(hooked) is None
    adapted = pair()
    adapted[0] = AdaptedLinear(adapted[0], LowRank(6, 4, 2, 1.0, 0.0))
    assert join(adapted) is None
    assert join([nn.Linear(6, 4, bias=False), pair()[0]]) is None
    assert join([part.to("meta") for part in pair()]) is None
    monkeypatch.setattr(module, "SMALL", 30)
    assert join(pair()) is None
