"""NT-Xent against the written-out matrix of cosines, and gradcheck."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from multimodal_zoo.objectives.nt_xent import nt_xent


def views(batch: int, width: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    first, second = (3 * torch.randn(batch, width, dtype=dtype) for _ in range(2))
    return first.requires_grad_(), second.requires_grad_()


def written_out(first: Tensor, second: Tensor, temperature: float, concepts: Tensor | None = None) -> Tensor:
    batch, both = len(first), torch.cat([first, second])
    logits = F.cosine_similarity(both[:, None], both, dim=-1) / temperature
    barred = torch.eye(2 * batch, dtype=torch.bool)
    if concepts is not None:
        same = (concepts[:, None] == concepts) & (concepts >= 0) & ~torch.eye(batch, dtype=torch.bool)
        barred |= same.repeat(2, 2)
    target = torch.arange(2 * batch).roll(batch)
    return F.cross_entropy(logits.masked_fill(barred, -math.inf), target, reduction="sum") / (2 * batch)


@pytest.mark.parametrize("batch", [2, 7])
@pytest.mark.parametrize("block_size", [1, 4, 100])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("concepts", [None, [0, 1, 0, -1, -1, 1, 0]])
def test_equals_the_written_out_matrix(
    batch: int, block_size: int, temperature: float, concepts: list[int] | None
) -> None:
    inputs, ids = views(batch), None if concepts is None else torch.tensor(concepts[:batch])
    ours = nt_xent(*inputs, temperature, ids, block_size)
    theirs = written_out(*inputs, temperature, ids)
    assert_close(ours, theirs)
    gradients = (torch.autograd.grad(2.5 * loss, inputs) for loss in (ours, theirs))
    for mine, expected in zip(*gradients, strict=True):
        assert_close(mine, expected)


def test_gradcheck() -> None:
    concepts = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5, concepts, block_size=3), views(4, width=3))


def test_one_image_has_nothing_to_be_told_from() -> None:
    loss = nt_xent(*(inputs := views(1)))
    assert loss.item() == 0.0
    for gradient in torch.autograd.grad(loss, inputs):
        assert_close(gradient, torch.zeros_like(gradient))


def test_constant_second_view_still_teaches_the_first() -> None:
    first, second = views(5)
    expected = torch.autograd.grad(written_out(first, second.detach(), 0.1), first)
    assert_close(torch.autograd.grad(nt_xent(first, second.detach()), first), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_views_are_compared_in_float32(dtype: torch.dtype) -> None:
    first, second = (side.detach().to(dtype) for side in views(6))
    first.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(first, second, block_size=5)
    assert loss.dtype == torch.float32
    assert_close(loss, written_out(first.float(), second.float(), 0.1), atol=1e-5, rtol=1e-5)
    loss.backward()
    assert first.grad is not None
    assert first.grad.dtype == dtype


def test_extremes() -> None:
    first, second = views(4)
    assert nt_xent(first * math.nan, second).isnan()
    assert nt_xent(first * 0, second).isfinite()  # a view of length zero is at a right angle to all others
    far = nt_xent(first.detach(), -first.detach(), temperature=1e-3)  # the two views are opposite
    assert_close(far, written_out(first.detach(), -first.detach(), 1e-3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3), torch.ones(2, 4)), r"first \(2, 3\), second \(2, 4\)"),
        ((torch.ones(0, 3), torch.ones(0, 3)), "batch > 0"),
        ((torch.ones(3), torch.ones(3)), r"\(batch, width\)"),
        ((torch.ones(2, 3).long(), torch.ones(2, 3).long()), "int64"),
        ((torch.ones(2, 3), torch.ones(2, 3), 0.0), "temperature is 0.0"),
        ((torch.ones(2, 3), torch.ones(2, 3), math.nan), "temperature is nan"),
        ((torch.ones(2, 3), torch.ones(2, 3), 0.1, torch.zeros(3).long()), r"concepts must be \(2,\)"),
        ((torch.ones(2, 3), torch.ones(2, 3), 0.1, None, 0), "block_size is 0"),
    ],
)
def test_bad_input_names_the_value(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nt_xent(*arguments)
