"""Gradients of large tables: those of torch's own layers, whether they are made or added to what stands."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.nn import accumulate
from multimodal_zoo.nn.accumulate import TokenEmbedding
from multimodal_zoo.objectives.linear_cross_entropy import linear_cross_entropy

IDS = torch.tensor([[3, 1, 1, 0], [2, 3, 3, 5]])


def pair(pad_id: int | None, dtype: torch.dtype) -> tuple[TokenEmbedding, nn.Embedding]:
    ours, theirs = TokenEmbedding(6, 4, pad_id).to(dtype), nn.Embedding(6, 4, padding_idx=pad_id, dtype=dtype)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("pad_id", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_table_learns_as_torchs_does(pad_id: int | None, dtype: torch.dtype) -> None:
    ours, theirs = pair(pad_id, dtype)
    factors = torch.randn(2, 4, 4, dtype=dtype)
    standing = None
    for _ in range(3):  # a gradient is made, then added to twice, in place
        for table in (ours, theirs):
            found = table(IDS)
            assert_close(found, table.weight[IDS])
            (found * factors).sum().backward()
        assert_close(ours.weight.grad, theirs.weight.grad)
        assert standing is None or ours.weight.grad.data_ptr() == standing
        standing = ours.weight.grad.data_ptr()


def test_what_adds_makes_no_whole_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn(9, 4, requires_grad=True)
    target = torch.tensor([1, 8, 3])
    hidden = torch.randn(3, 4)
    linear_cross_entropy(hidden, weight, None, target, 6).losses.sum().backward()
    once = weight.grad.clone()
    monkeypatch.setattr(torch, "empty_like", None)  # what would make one
    linear_cross_entropy(hidden, weight, None, target, 6).losses.sum().backward()
    assert_close(weight.grad, 2 * once)


def gradients_asked_for(weight: Tensor) -> Tensor:
    losses = linear_cross_entropy(torch.ones(3, 4), weight, None, torch.tensor([1, 8, 3])).losses
    return torch.autograd.grad(losses.sum(), weight)[0]


def test_a_gradient_that_is_asked_for_is_returned() -> None:
    weight = torch.randn(9, 4, requires_grad=True)
    expected = gradients_asked_for(weight)
    weight.grad = torch.ones_like(weight)
    assert_close(gradients_asked_for(weight), expected)
    assert torch.equal(weight.grad, torch.ones_like(weight))
    table = TokenEmbedding(6, 4)
    table.weight.grad = torch.ones_like(table.weight)
    (found,) = torch.autograd.grad(table(IDS).sum(), table.weight)
    assert_close(found[3], torch.full((4,), 3.0))
    assert torch.equal(table.weight.grad, torch.ones_like(table.weight))


@pytest.mark.parametrize("hook", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_see_their_gradient(hook: str) -> None:
    table, seen = TokenEmbedding(6, 4), []
    getattr(table.weight, hook)(lambda given: seen.append(given.shape) or None)
    for _ in range(2):
        table(IDS).sum().backward()
    assert len(seen) == 2
    assert_close(table.weight.grad[3], torch.full((4,), 6.0))


def test_a_table_that_is_no_leaf_or_frozen() -> None:
    table = TokenEmbedding(6, 4).requires_grad_(False)
    assert not table(IDS).requires_grad
    weight = torch.randn(9, 4, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    linear_cross_entropy(torch.ones(3, 4), 2 * weight, None, torch.tensor([1, 8, 3])).losses.sum().backward()
    doubled = torch.autograd.grad(
        linear_cross_entropy(torch.ones(3, 4), 2 * weight, None, torch.tensor([1, 8, 3])).losses.sum(), weight
    )[0]
    assert_close(weight.grad, doubled)


def test_function_transforms_take_torchs_way() -> None:
    table = TokenEmbedding(6, 4)

    def total(weight: Tensor) -> Tensor:
        return torch.func.functional_call(table, {"weight": weight}, (IDS,)).pow(2).sum()

    found = torch.func.grad(total)(table.weight.detach())
    assert_close(found, torch.autograd.grad(table(IDS).pow(2).sum(), table.weight)[0])
    assert accumulate.plain_autograd()
