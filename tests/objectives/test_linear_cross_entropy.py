"""Cross-entropy of every row of a large head, in tiles, against torch's on whole logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from multimodal_zoo.objectives import linear_cross_entropy as module
from multimodal_zoo.objectives.linear_cross_entropy import linear_cross_entropy

CLASSES, WIDTH = 13, 5


def head(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shapes = ((rows, WIDTH), (CLASSES, WIDTH), (CLASSES,))
    hidden, weight, bias = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    return hidden, weight, bias, torch.randint(0, CLASSES, (rows,))


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("held", [1, 20, 35, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("tile_rows", "kept"), [(2, 0), (8192, 0), (2, 30), (8192, 50), (8192, 10**6)])
def test_equals_torch(monkeypatch, rows: int, held: int, with_bias: bool, tile_rows: int, kept: int) -> None:
    monkeypatch.setattr(module, "TILE_ROWS", tile_rows)
    hidden, weight, bias, target = head(rows)
    leaves = (hidden, weight, bias) if with_bias else (hidden, weight)
    ours = linear_cross_entropy(hidden, weight, bias if with_bias else None, target, held, kept)
    logits = F.linear(*leaves)
    theirs = F.cross_entropy(logits, target, reduction="none")
    assert_close(ours.losses, theirs)
    assert torch.equal(ours.hits, logits.argmax(1) == target)
    factors = torch.randn(rows, dtype=torch.float64)
    for _ in range(2):  # a graph that is kept gives the same again
        gradients = (torch.autograd.grad((factors * x).sum(), leaves, retain_graph=True) for x in (ours.losses, theirs))
        for mine, expected in zip(*gradients, strict=True):
            assert_close(mine, expected)


def test_gradcheck() -> None:
    *leaves, target = head(5)
    assert torch.autograd.gradcheck(lambda *x: linear_cross_entropy(*x, target, held=12).losses, leaves)


def test_large_logits_stay_finite() -> None:
    hidden, weight, _, target = head(4, torch.float32)
    hidden = (hidden.detach() * 1e4).requires_grad_()
    ours = linear_cross_entropy(hidden, weight, None, target, 12).losses
    assert_close(ours, F.cross_entropy(hidden @ weight.T, target, reduction="none"))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(ours.sum(), (hidden, weight)))


def test_what_is_kept_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    products, real = [], module._Tiles._product
    monkeypatch.setattr(module._Tiles, "_product", lambda *given: products.append(1) or real(*given))
    hidden, weight, _, target = head(4)
    counts = []
    for kept, standing in ((0, False), (2 * 12, False), (10**6, False), (10**6, True)):
        weight.grad = torch.zeros_like(weight) if standing else None
        products.clear()
        linear_cross_entropy(hidden, weight, None, target, 12, kept).losses.sum().backward()
        counts.append(len(products))
    tiles = -(-CLASSES // 3)
    assert counts == [2 * tiles, 2 * tiles - 2, tiles, 2 * tiles]


@pytest.mark.parametrize("held", [1, 20, 35, 1000])
@pytest.mark.parametrize("tile_rows", [2, 8192])
@pytest.mark.parametrize("frozen", [False, True])
def test_masked_logits_do_not_count(monkeypatch: pytest.MonkeyPatch, held: int, tile_rows: int, frozen: bool) -> None:
    monkeypatch.setattr(module, "TILE_ROWS", tile_rows)
    hidden, weight, bias, target = head(6)
    leaves = (hidden, weight.detach(), bias.detach()) if frozen else (hidden, weight, bias)
    barred = (torch.rand(6, CLASSES) < 0.5).scatter(1, target[:, None], False)

    def mask(rows: slice, classes: slice, logits: Tensor) -> None:
        logits.masked_fill_(barred[rows, classes], -1e30)

    ours = linear_cross_entropy(*leaves, target, held, mask=mask)
    logits = F.linear(*leaves).masked_fill(barred, -math.inf)
    theirs = F.cross_entropy(logits, target, reduction="none")
    assert_close(ours.losses, theirs)
    assert torch.equal(ours.hits, logits.argmax(1) == target)
    learnt = leaves[:1] if frozen else leaves
    gradients = (torch.autograd.grad(losses.sum(), learnt) for losses in (ours.losses, theirs))
    for mine, expected in zip(*gradients, strict=True):
        assert_close(mine, expected)


def test_no_more_logits_than_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    product = torch.mm

    def watched(*args: Tensor, out: Tensor) -> Tensor:
        sizes.append(out.numel())
        return product(*args, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    linear_cross_entropy(*head(64), held=8 * CLASSES).losses.sum().backward()
    assert max(sizes) <= 8 * CLASSES
    assert sum(sizes) == 2 * 64 * CLASSES


def test_nan_is_not_hidden() -> None:
    hidden, weight, bias, target = head(4)
    assert linear_cross_entropy(hidden * math.nan, weight, bias, target).losses.isnan().all()


@pytest.mark.parametrize("target", [[0, CLASSES], [-100, 1]])
def test_a_class_that_does_not_exist_is_refused(target: list[int]) -> None:
    hidden, weight, bias, _ = head(2)
    with pytest.raises(ValueError, match=rf"targets run from {min(target)} to {max(target)}; the head has 13 classes"):
        linear_cross_entropy(hidden, weight, bias, torch.tensor(target))


def test_no_rows() -> None:
    *leaves, target = head(0, torch.float32)
    found = linear_cross_entropy(*leaves, target)
    assert found.losses.shape == found.hits.shape == (0,)
    for gradient, leaf in zip(torch.autograd.grad(found.losses.sum(), leaves), leaves, strict=True):
        assert_close(gradient, torch.zeros_like(leaf))


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_frozen_parts_get_no_gradient(wanted: int) -> None:
    *leaves, target = head(6)
    expected = torch.autograd.grad(F.cross_entropy(F.linear(*leaves), target, reduction="sum"), leaves[wanted])
    frozen = [leaf if number == wanted else leaf.detach() for number, leaf in enumerate(leaves)]
    assert_close(torch.autograd.grad(linear_cross_entropy(*frozen, target, 24).losses.sum(), leaves[wanted]), expected)


@pytest.mark.parametrize("held", [1, 20, 35, 1000])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("tile_rows", [2, 8192])
def test_a_frozen_matrix_leaves_nothing_to_the_backward_pass(
    monkeypatch: pytest.MonkeyPatch, held: int, with_bias: bool, tile_rows: int
) -> None:
    monkeypatch.setattr(module, "TILE_ROWS", tile_rows)
    hidden, weight, bias, target = head(7)
    frozen = (weight.detach() * 30, bias.detach() if with_bias else None)
    factors = torch.randn(7, dtype=torch.float64)
    (expected,) = torch.autograd.grad(
        (factors * F.cross_entropy(F.linear(hidden, *frozen), target, reduction="none")).sum(), hidden
    )
    losses = linear_cross_entropy(hidden, *frozen, target, held, kept=10**6).losses
    products, real = [], module.add_product
    monkeypatch.setattr(module, "add_product", lambda *given, **named: products.append(1) or real(*given, **named))
    for _ in range(2):  # a graph that is kept gives the same again
        assert_close(torch.autograd.grad((factors * losses).sum(), hidden, retain_graph=True)[0], expected)
    assert not products
    with torch.no_grad():
        assert_close(linear_cross_entropy(hidden, *frozen, target, held).losses, losses)
    assert not products


def test_gradcheck_of_a_frozen_matrix() -> None:
    hidden, weight, bias, target = head(5)
    frozen = (weight.detach(), bias.detach())
    assert torch.autograd.gradcheck(lambda x: linear_cross_entropy(x, *frozen, target, held=12).losses, hidden)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_products_are_summed_in_float32(dtype: torch.dtype) -> None:
    *leaves, target = head(6, torch.float32)
    halves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    ours = linear_cross_entropy(*halves, target, 24).losses
    expected = plain_losses(halves, target)
    assert ours.dtype == torch.float32
    assert_close(ours, expected, atol=0.02, rtol=0.02)
    found = (torch.autograd.grad(losses.sum(), halves) for losses in (ours, expected))
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == dtype
        assert_close(mine, theirs, atol=0.1, rtol=0.05)
    alone = linear_cross_entropy(halves[0], *(half.detach() for half in halves[1:]), target, 24).losses
    (mine,), (theirs,) = (
        torch.autograd.grad(losses.sum(), halves[:1]) for losses in (alone, plain_losses(halves, target))
    )
    assert mine.dtype == dtype
    assert_close(mine, theirs, atol=0.1, rtol=0.05)


def plain_losses(halves: list[Tensor], target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(*halves).float(), target, reduction="none")


def test_autocast_multiplies_in_its_own_type() -> None:
    *leaves, target = head(6, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = linear_cross_entropy(*leaves, target, 24).losses
        expected = F.cross_entropy(F.linear(*leaves).float(), target, reduction="none")
    assert ours.dtype == torch.float32
    assert_close(ours, expected, atol=0.02, rtol=0.02)
    for mine, leaf in zip(torch.autograd.grad(ours.sum(), leaves), leaves, strict=True):
        assert mine.dtype == leaf.dtype


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.zeros(3, dtype=torch.long)}, r"target must be \(6,\) of torch.int64"),
        ({"target": torch.zeros(6)}, "not .*float32"),
        ({"weight": torch.zeros(CLASSES, 4)}, r"hidden must be \(rows, width\)"),
        ({"bias": torch.zeros(4)}, r"bias must be \(13,\)"),
        ({"held": 0}, "held is 0.*held_logits"),
        ({"kept": -1}, "kept is -1.*kept_logits"),
    ],
)
def test_shapes_that_do_not_fit(change: dict, message: str) -> None:
    hidden, weight, bias, target = head(6, torch.float32)
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**{"hidden": hidden, "weight": weight, "bias": bias, "target": target, **change})
