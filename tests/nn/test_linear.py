"""Few rows take another way to the same product."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from multimodal_zoo.nn import linear as module
from multimodal_zoo.nn.linear import LinearLayer, for_decoding, linear


@pytest.fixture(autouse=True)
def no_matrix_is_small(monkeypatch) -> None:
    monkeypatch.setattr(module, "SMALL", 0)


@pytest.mark.parametrize("shape", [(1, 24), (2, 24), (1, 3, 24), (2, 4, 24), (3, 5, 24), (24,), (0, 24)])
@pytest.mark.parametrize("out", [7, 24, 90])
@pytest.mark.parametrize("bias", [False, True])
def test_the_product_is_torchs(shape, out, bias) -> None:
    x, weight, extra = torch.randn(shape), torch.randn(out, 24), torch.randn(out) if bias else None
    with torch.no_grad():
        found = linear(x, weight, extra)
    expected = F.linear(x, weight, extra)
    assert found.shape == expected.shape
    assert found.is_contiguous()
    assert_close(found, expected)


def test_few_rows_are_multiplied_from_the_other_side(monkeypatch) -> None:
    used = []
    monkeypatch.setattr(module.torch, "mm", lambda a, b: used.append(a.shape) or a @ b)
    monkeypatch.setattr(module, "SMALL", 321)
    with torch.no_grad():
        linear(torch.randn(1, 8), torch.randn(40, 8))
    assert not used  # a small matrix stays in the caches
    monkeypatch.setattr(module, "SMALL", 0)
    wide, narrow = torch.randn(40, 8), torch.randn(4, 8)
    with torch.no_grad():
        for rows, weight, expected in [
            (1, wide, True),
            (8, wide, True),
            (9, wide, False),
            (1, narrow, False),
            (2, narrow, True),
            (4, narrow, False),
        ]:
            used.clear()
            linear(torch.randn(rows, 8), weight)
            assert bool(used) == expected, (rows, weight.shape)
    used.clear()
    linear(torch.randn(1, 8), wide)  # with gradients torch's own
    with torch.no_grad():
        linear(torch.randn(1, 8, dtype=torch.float64), wide.double())
        with torch.autocast("cpu", torch.bfloat16):
            linear(torch.randn(1, 8), wide)
    assert not used


def test_a_strided_input_and_half_a_matrix() -> None:
    x, weight = torch.randn(2, 6, 8).transpose(0, 1)[:1], torch.randn(30, 8)
    with torch.no_grad():
        assert_close(linear(x, weight[5:25]), F.linear(x, weight[5:25]))


def test_the_layer_trains_and_loads_as_torchs() -> None:
    ours, theirs = LinearLayer(8, 40), torch.nn.Linear(8, 40)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 8)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    assert_close(ours.weight.grad, theirs.weight.grad)
    assert_close(ours.bias.grad, theirs.bias.grad)
    with torch.device("meta"):
        assert LinearLayer(8, 40)(torch.empty(1, 8)).shape == (1, 40)


def test_only_decoders_take_the_other_way(monkeypatch) -> None:
    used = []
    monkeypatch.setattr(module.torch, "mm", lambda a, b: used.append(a.shape) or a @ b)
    layers = torch.nn.Sequential(LinearLayer(8, 40), torch.nn.Linear(40, 8))
    x = torch.randn(1, 8)
    with torch.no_grad():
        expected = layers(x)
        assert not used
        for_decoding(layers)
        assert_close(layers(x), expected)
    assert used == [(40, 8)]
