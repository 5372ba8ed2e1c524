"""Root-mean-square normalisation: the few tokens of a decoding step take a shorter way to the same."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.nn import norms
from multimodal_zoo.nn.norms import RMSNorm


def _norm(width: int) -> RMSNorm:
    norm = RMSNorm(width, eps=1e-3)
    torch.nn.init.normal_(norm.weight)
    return norm


def _definition(norm: RMSNorm, tokens: torch.Tensor) -> torch.Tensor:
    exact = tokens.double()
    return exact / (exact.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight.double()


@pytest.mark.parametrize("shape", [(7,), (1, 7), (4, 1, 7), (2, 40, 7), (0, 1, 7)])
def test_few_and_many_tokens_get_the_same(shape) -> None:
    norm, tokens = _norm(7), torch.randn(shape)
    with torch.no_grad():
        found = norm(tokens)
    assert found.shape == tokens.shape
    assert_close(found, _definition(norm, tokens).float())
    assert_close(found, norm(tokens).detach())


def test_tokens_may_have_any_strides() -> None:
    norm, tokens = _norm(6), torch.randn(6, 3, 2).transpose(0, 2)
    with torch.no_grad():
        assert_close(norm(tokens), _definition(norm, tokens).float())


def test_half_precision_keeps_its_order_and_autocast_its_float32(monkeypatch) -> None:
    norm, tokens = _norm(16), torch.randn(1, 2, 16) * 300
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert_close(norm(tokens), _definition(norm, tokens).float())
    norm = norm.bfloat16()
    with torch.no_grad():
        found = norm(tokens.bfloat16())
        monkeypatch.setattr(norms, "FEW", 0)
        assert_close(found, norm(tokens.bfloat16()), rtol=0, atol=0)
    assert found.dtype == torch.bfloat16
