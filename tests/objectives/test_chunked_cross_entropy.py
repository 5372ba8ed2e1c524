"""Cross-entropy of a linear head in blocks against torch's, whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from multimodal_zoo.objectives.chunked_cross_entropy import linear_cross_entropy

CLASSES, WIDTH = 11, 5


def head(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shapes = ((rows, WIDTH), (CLASSES, WIDTH), (CLASSES,))
    hidden, weight, bias = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return hidden, weight, bias, torch.randint(0, CLASSES, (rows,))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("block_size", [1, 3, 7, 100])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_torch(rows: int, block_size: int, with_bias: bool) -> None:
    hidden, weight, bias, target = head(rows)
    leaves = (hidden, weight, bias) if with_bias else (hidden, weight)
    ours = linear_cross_entropy(hidden, weight, bias if with_bias else None, target, block_size)
    theirs = F.cross_entropy(F.linear(*leaves), target)
    assert_close(ours, theirs)
    for _ in range(2):  # a graph that is kept gives the same again
        gradients = (torch.autograd.grad(2.5 * loss, leaves, retain_graph=True) for loss in (ours, theirs))
        for mine, expected in zip(*gradients, strict=True):
            assert_close(mine, expected)


def test_gradcheck() -> None:
    *leaves, target = head(5)
    assert torch.autograd.gradcheck(lambda *x: linear_cross_entropy(*x, target, block_size=2), leaves)


def test_no_rows_give_zero_and_gradients_of_zero() -> None:
    *leaves, target = head(0, torch.float32)
    loss = linear_cross_entropy(*leaves, target)
    assert loss.item() == 0.0
    for gradient, leaf in zip(torch.autograd.grad(loss, leaves), leaves, strict=True):
        assert_close(gradient, torch.zeros_like(leaf))


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_frozen_parts_get_no_gradient(wanted: int) -> None:
    *leaves, target = head(6)
    expected = torch.autograd.grad(F.cross_entropy(F.linear(*leaves), target), leaves[wanted])
    frozen = [leaf if number == wanted else leaf.detach() for number, leaf in enumerate(leaves)]
    assert_close(torch.autograd.grad(linear_cross_entropy(*frozen, target, 4), leaves[wanted]), expected)


def test_masked_logits_do_not_count() -> None:
    *leaves, target = head(6)
    barred = (torch.rand(6, CLASSES) < 0.5).scatter(1, target[:, None], False)
    ours = linear_cross_entropy(*leaves, target, 4, lambda rows, logits: logits.masked_fill_(barred[rows], -1e30))
    theirs = F.cross_entropy(F.linear(*leaves).masked_fill(barred, -math.inf), target)
    assert_close(ours, theirs)
    gradients = (torch.autograd.grad(loss, leaves) for loss in (ours, theirs))
    for mine, expected in zip(*gradients, strict=True):
        assert_close(mine, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_products_are_summed_in_float32(dtype: torch.dtype) -> None:
    *leaves, target = head(6, torch.float32)
    halves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    loss = linear_cross_entropy(*halves, target, 4)
    expected = F.cross_entropy(F.linear(*halves).float(), target)
    assert loss.dtype == torch.float32
    assert_close(loss, expected, atol=0.02, rtol=0.02)
    for mine, theirs in zip(torch.autograd.grad(loss, halves), torch.autograd.grad(expected, halves), strict=True):
        assert mine.dtype == dtype
        assert_close(mine, theirs, atol=0.02, rtol=0.05)


def test_under_autocast_the_products_run_in_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[torch.dtype] = set()
    product = torch.mm

    def watched(*args: Tensor, out: Tensor) -> Tensor:
        seen.add(out.dtype)
        return product(*args, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    *leaves, target = head(6, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = linear_cross_entropy(*leaves, target, 4)
    gradients = torch.autograd.grad(loss, leaves)  # autocast no longer holds here
    assert (loss.dtype, seen) == (torch.float32, {torch.bfloat16})
    expected = F.cross_entropy(F.linear(*leaves), target)
    assert_close(loss, expected, atol=0.02, rtol=0.02)
    for mine, theirs in zip(gradients, torch.autograd.grad(expected, leaves), strict=True):
        assert mine.dtype == torch.float32
        assert_close(mine, theirs, atol=0.02, rtol=0.05)
    *leaves, target = head(6)
    with torch.autocast("cpu", torch.bfloat16):
        double = linear_cross_entropy(*leaves, target, 4)
    assert_close(double, F.cross_entropy(F.linear(*leaves), target))


def test_logits_are_never_held_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    product = torch.mm

    def watched(*args: Tensor, out: Tensor) -> Tensor:
        sizes.append(out.numel())
        return product(*args, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    linear_cross_entropy(*head(64), block_size=8).backward()
    assert (len(sizes), max(sizes)) == (16, 8 * CLASSES)


def test_large_logits_do_not_overflow_and_nan_is_not_hidden() -> None:
    hidden, weight, bias, target = (one.detach() for one in head(4))
    assert_close(
        linear_cross_entropy(1e4 * hidden, weight, bias, target),
        F.cross_entropy(F.linear(1e4 * hidden, weight, bias), target),
    )
    assert linear_cross_entropy(hidden * math.nan, weight, bias, target).isnan()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3), torch.ones(4, 5), None, torch.zeros(2).long()), r"hidden \(2, 3\), weight \(4, 5\)"),
        ((torch.ones(2, 1, 3), torch.ones(4, 3), None, torch.zeros(2).long()), r"hidden \(2, 1, 3\)"),
        ((torch.ones(2, 3), torch.ones(4, 3), torch.ones(3), torch.zeros(2).long()), r"bias must be \(4,\)"),
        ((torch.ones(2, 3), torch.ones(4, 3), None, torch.zeros(3).long()), r"target must be \(2,\)"),
        ((torch.ones(2, 3), torch.ones(4, 3), None, torch.zeros(2)), "float32"),
        ((torch.ones(2, 3), torch.ones(4, 3), None, torch.zeros(2).long(), 0), "block_size is 0"),
    ],
)
def test_bad_input_names_the_value(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(*arguments)


def test_a_class_that_does_not_exist_is_an_error() -> None:
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        linear_cross_entropy(torch.ones(2, 3), torch.ones(4, 3), None, torch.tensor([0, 4]))
