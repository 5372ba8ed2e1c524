"""Tokens of two kinds, sorted and put back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.nn.route import Route

FLAGS = {
    "mixed": torch.tensor([[0, 1, 1, 0], [0, 0, 0, 1]], dtype=torch.bool),
    "text": torch.zeros(2, 4, dtype=torch.bool),
    "pictures": torch.ones(2, 4, dtype=torch.bool),
    "one": torch.tensor([[True]]),
}


@pytest.mark.parametrize("vision", FLAGS.values(), ids=FLAGS)
def test_kinds_are_parted_in_order_and_put_back(vision: Tensor) -> None:
    route, tokens = Route.of(vision), torch.randn(*vision.shape, 3, 2)
    text, pictures = route.split(tokens)
    assert torch.equal(text, tokens[~vision])
    assert torch.equal(pictures, tokens[vision])
    assert torch.equal(route.merge(text, pictures), tokens)


def test_gradients_go_back_the_way() -> None:
    vision, tokens = FLAGS["mixed"], torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(2, 4, 3, dtype=torch.float64)

    def through(tokens: Tensor) -> Tensor:
        route = Route.of(vision)
        text, pictures = route.split(tokens)
        return (route.merge(text.sin(), pictures.square()) * factors).sum()

    assert torch.autograd.gradcheck(through, tokens)
    (found,) = torch.autograd.grad(through(tokens), tokens)
    assert_close(found, torch.where(vision[..., None], 2 * tokens, tokens.cos()) * factors)


def test_a_kind_without_tokens_has_gradients() -> None:
    tokens = torch.randn(2, 4, 3)
    weight = torch.randn(3, 3, requires_grad=True)
    text, pictures = Route.of(FLAGS["text"]).split(tokens)
    Route.of(FLAGS["text"]).merge(text, pictures @ weight).sum().backward()
    assert torch.equal(weight.grad, torch.zeros(3, 3))


def test_the_route_of_some_places() -> None:
    vision, places = FLAGS["mixed"], torch.tensor([[3, 1], [0, 3]])
    tokens = torch.randn(2, 2, 5)
    route = Route.of(vision)
    assert route.at(None) is route
    text, pictures = route.at(places).split(tokens)
    assert torch.equal(text, torch.stack([tokens[0, 0], tokens[1, 0]]))
    assert torch.equal(pictures, torch.stack([tokens[0, 1], tokens[1, 1]]))
