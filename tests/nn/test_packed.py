"""Attention over packed documents and with dropout: equal to the definition, in memory that grows with the tokens."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from multimodal_zoo.nn import dropped, kernels, packed
from multimodal_zoo.nn.attention import attend
from multimodal_zoo.nn.dropped import dropped_causal
from multimodal_zoo.nn.kernels import KERNELS
from multimodal_zoo.nn.masks import Causal, Document, Padding
from multimodal_zoo.nn.packed import packed_runs

ROWS = {
    "several documents": [[0, 0, 0, 1, 1, 2, 2, -1], [0, 1, 1, 1, 1, 1, 1, 1]],
    "the same lengths": [[0, 0, 0, 1, 1, 2, 2, 2], [5, 5, 5, 1, 1, 7, 7, 7]],
    "one document each": [[0, 0, 0, 0, 0, 0, -1, -1], [3, 3, 3, 3, 3, 3, 3, 3]],
    "padding first": [[-1, -1, 0, 0, 1, 1, 1, -1], [0, 0, 0, 0, -1, -1, -1, -1]],
    "nothing but padding": [[-1] * 8, [0] * 8],
}


def draw(batch: int = 2, kv_heads: int = 2, tokens: int = 8) -> list[Tensor]:
    shapes = [(batch, heads, tokens, 4) for heads in (4, kv_heads, kv_heads)]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "LEAST_TOKENS", 1)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("kv_heads", [4, 1])
def test_documents_one_by_one_are_the_definition(name: str, kv_heads: int) -> None:
    ids, inputs = torch.tensor(ROWS[name]), draw(kv_heads=kv_heads)
    real = (ids >= 0)[:, None, :, None]
    found, gradients = [], []
    for kernel in ("sdpa", "math"):
        mask = Causal() & Document(ids)
        assert packed_runs(mask, 8, 8) is not None
        found.append(attend(*inputs, mask=mask, kernel=kernel) * real)
        gradients.append(torch.autograd.grad(found[-1].pow(2).sum(), inputs))
    assert_close(found[0], found[1])
    for mine, theirs in zip(*gradients, strict=True):
        assert_close(mine, theirs)


def test_what_is_no_packed_row_keeps_its_dense_mask() -> None:
    ids = torch.tensor([[0, 0, 1, 0]])
    assert Document(ids).runs is None
    for mask in (None, Causal(), Document(ids), Causal() & Document(ids), Causal(2) & Document(ids)):
        assert packed_runs(mask, 4, 4) is None
    several = Causal() & Document(torch.tensor([[0, 0, 1, 1]]))
    assert packed_runs(several, 4, 4) is None, "short rows"
    assert packed_runs(several, 1, 4) is None, "a cached step"
    assert packed_runs(several & Padding(torch.tensor([4])), 4, 4) is None
    assert packed_runs(Causal() & Document(torch.tensor([[0, 0, 0, -1]])), 4, 4) is not None, "a plain triangle"


def test_flash_takes_documents_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def flash_attn_varlen_func(
        q: Tensor, k: Tensor, v: Tensor, starts: Tensor, ends: Tensor, longest: int, _: int,
        dropout_p: float, softmax_scale: float, causal: bool,
    ) -> Tensor:  # fmt: skip
        assert causal
        assert starts.dtype == torch.int32
        assert torch.equal(starts, ends)
        assert longest == int(starts.diff().max())
        pieces = [t.split(starts.diff().tolist()) for t in (q, k, v)]
        return torch.cat([
            F.scaled_dot_product_attention(
                *(t.transpose(0, 1) for t in one), is_causal=True, scale=softmax_scale, enable_gqa=True
            ).transpose(0, 1)
            for one in zip(*pieces, strict=True)
        ])  # fmt: skip

    module = ModuleType("flash_attn")
    module.flash_attn_varlen_func = flash_attn_varlen_func  # type: ignore[attr-defined]
    module.flash_attn_func = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", module)
    monkeypatch.setitem(KERNELS, "flash", KERNELS["flash"]._replace(missing=lambda: ""))
    inputs = [tensor.detach().half() for tensor in draw()]
    for rows in ROWS.values():
        ids = torch.tensor(rows)
        real = (ids >= 0)[:, None, :, None]
        found = [attend(*inputs, mask=Causal() & Document(ids), kernel=kernel) * real for kernel in ("flash", "math")]
        assert_close(*found, atol=2e-3, rtol=1e-2)


class Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_no_square_of_the_tokens_is_made(dropout: float) -> None:
    tokens = 2048
    ids = torch.arange(tokens)[None] // 700
    inputs = [torch.randn(1, heads, tokens, 8, requires_grad=True) for heads in (2, 1, 1)]
    with Largest() as largest:
        attend(*inputs, mask=Causal() & Document(ids), dropout=dropout).sum().backward()
    assert 0 < largest.numbers <= 2 * dropped.BLOCK * 700
    with Largest() as largest:
        attend(*inputs, mask=Causal(), dropout=dropout).sum().backward()
    assert largest.numbers <= 2 * dropped.BLOCK * tokens


def test_without_dropout_it_is_causal_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "BLOCK", 3)
    inputs = draw(kv_heads=4)
    pair = dropped_causal(*inputs, 0.4, 0.0), attend(*inputs, mask=Causal(), scale=0.4, kernel="math")
    assert_close(*pair)
    for mine, theirs in zip(*(torch.autograd.grad(one.pow(2).sum(), inputs) for one in pair), strict=True):
        assert_close(mine, theirs)


def test_dropout_has_the_gradient_of_what_it_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dropped, "BLOCK", 3)

    def run(*inputs: Tensor) -> Tensor:
        torch.manual_seed(5)
        return dropped_causal(*inputs, 0.5, 0.4)

    inputs = draw(batch=1, kv_heads=4, tokens=7)
    assert torch.autograd.gradcheck(run, inputs)
    loss = run(*inputs).sum()
    before = torch.get_rng_state()
    loss.backward()
    assert torch.equal(before, torch.get_rng_state()), "backward leaves the random numbers as they are"


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    tokens = kernels.BLOCK + 44
    query, key = torch.zeros(1, 2, tokens, 4), torch.zeros(1, 1, tokens, 4)
    value = torch.eye(tokens)[None, None]  # the result shows the weights
    torch.manual_seed(0)
    weights = attend(query, key, value, mask=Causal(), dropout=0.25)
    expected = torch.ones(tokens, tokens).tril() / torch.arange(1, tokens + 1)[:, None]
    kept = weights > 0
    share = kept.sum() / (2 * (expected > 0).sum())
    assert abs(float(share) - 0.75) < 0.01
    assert_close(weights[kept], (expected / 0.75).expand(1, 2, -1, -1)[kept])
