"""Emu's Causal Former: what each query sees, gradients, copies that begin apart, types, bad sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.encoders.causal_former import CausalFormer
from multimodal_zoo.encoders.image_tokens import ImageTokens
from multimodal_zoo.registry import build

WIDTH, CONTEXT = 8, 5


def node(**changes: Any) -> dict[str, Any]:
    norm, drop = {"type": "rms_norm", "width": 6, "eps": 1e-6}, {"type": "branch_dropout", "rate": 0.1}
    attention = {"width": 6, "output_bias": False, "scale": 1.0, "dropout": 0.1}
    qkv = {"type": "separate_qkv", "width": 6, "heads": 2, "head_dim": 4, "kv_heads": 2, "biased": []}
    cross = {"type": "cross_attention", "context_width": CONTEXT, "heads": 2, "head_dim": 4, "bias": False}
    block = {
        "type": "cross_block", "norm": norm, "layer_scale": drop,
        "attention": {**attention, "type": "self_attention", "qkv": qkv},
        "cross_attention": {**attention, **cross},
        "mlp": {"type": "mlp", "width": 6, "hidden": 10, "activation": "relu", "bias": False, "inner_norm": drop},
    }  # fmt: skip
    return {
        "type": "causal_former", "width": WIDTH, "queries": 7, "depth": 3, "dropout": 0.1, "std": 0.5, "norm": norm,
        "context_norm": {"type": "layer_norm", "width": CONTEXT, "eps": 1e-6}, "block": block,
        "positions": {"type": "relative_bias", "heads": 2, "buckets": 4, "max_distance": 6, "std": 0.5}, **changes,
    }  # fmt: skip


def former(**changes: Any) -> CausalFormer:
    torch.manual_seed(0)
    made = build(node(**changes), path="connector")
    with torch.no_grad():
        for weight in made.parameters():
            weight.copy_(torch.randn_like(weight) * 0.5)
    return made.eval()


def seen(batch: int = 2, tokens: int = 5) -> ImageTokens:
    torch.manual_seed(1)
    return ImageTokens(torch.randn(batch, tokens, CONTEXT), (2, 2), tokens - 4)


def test_a_query_sees_those_before_it_and_the_whole_picture() -> None:
    """By the gradients of each embedding at the queries and at the tokens."""
    model, given = former(), seen(1)
    tokens = given.tokens.requires_grad_()
    found = model(given._replace(tokens=tokens), 7)[0]
    for place in range(7):
        own, picture = torch.autograd.grad(found[place].square().sum(), (model.tokens, tokens), retain_graph=True)
        assert own[: place + 1].abs().sum(-1).all()
        assert not own[place + 1 :].any()
        assert picture[0].abs().sum(-1).all()


def test_fewer_queries_give_the_first_embeddings() -> None:
    """Causal: what comes behind changes nothing."""
    model, short = former(), former(queries=4)
    state = {**model.state_dict(), "tokens": model.tokens[:4]}
    short.load_state_dict(state)
    assert_close(short(seen(), 4), model(seen(), 7)[:, :4])


def test_pictures_do_not_meet() -> None:
    model, given = former(), seen(3)
    found = model(given, 7)
    assert found.shape == (3, 7, WIDTH)
    for row in range(3):
        assert_close(found[row], model(given._replace(tokens=given.tokens[row : row + 1]), 7)[0])


def test_a_token_more_or_less_is_another_picture() -> None:
    """The class token is read like any other; any number of tokens fits."""
    model = former()
    assert model(seen(tokens=9), 7).shape == (2, 7, WIDTH)
    whole = seen()
    patches = ImageTokens(whole.tokens[:, 1:], (2, 2), 0)
    assert not torch.allclose(model(whole, 7), model(patches, 7))


def test_gradients_by_differences() -> None:
    model, given = former(queries=3, depth=1).double(), seen(1)

    def loss(tokens: Tensor, *weights: Tensor) -> Tensor:
        names = [name for name, _ in model.named_parameters()]
        changed = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(model, changed, (given._replace(tokens=tokens), 3)).square().mean()

    inputs = (given.tokens.double(), *(weight.detach() for weight in model.parameters()))
    assert torch.autograd.gradcheck(loss, tuple(one.requires_grad_() for one in inputs), atol=1e-6, rtol=1e-4)


def test_all_weights_learn_and_the_blocks_share_one_bias() -> None:
    model = former()
    model(seen(), 7).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []
    assert [name for name, _ in model.named_parameters() if "positions" in name] == ["positions.weight"]


def test_blocks_begin_apart_and_start_values_can_be_drawn_again() -> None:
    torch.manual_seed(0)
    model = build(node(), path="connector")
    first, second = (block.attention.qkv.query.weight for block in model.blocks[:2])
    assert not torch.equal(first, second)
    before = model.tokens.clone()
    model.reset_parameters()
    assert not torch.equal(before, model.tokens)


def test_dropout_acts_while_training_only() -> None:
    model, given = former(), seen()
    assert torch.equal(model(given, 7), model(given, 7))
    model.train()
    assert not torch.equal(model(given, 7), model(given, 7))
    assert torch.equal(former(dropout=0.0, context_norm=None)(given, 7), former(context_norm=None)(given, 7))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 3e-2)])
def test_other_types(dtype: torch.dtype, tolerance: float) -> None:
    model, given = former(), seen()
    expected = model(given, 7)
    found = model.to(dtype)(given._replace(tokens=given.tokens.to(dtype)), 7)
    assert found.dtype == dtype
    assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


def test_on_meta_nothing_is_allocated() -> None:
    with torch.device("meta"):
        model = build(node(), path="connector")
    assert all(weight.is_meta for weight in model.parameters())
    assert model(ImageTokens(torch.empty(2, 5, CONTEXT, device="meta"), (2, 2), 1), 7).shape == (2, 7, WIDTH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": 0}, r"connector\.queries is 0, connector\.depth is 3; each must be 1 or more"),
        ({"depth": 0}, r"connector\.depth is 0"),
        ({"norm": {"type": "rms_norm", "width": 7, "eps": 1e-6}}, r"connector\.norm has width 7, connector\.block"),
        (
            {"context_norm": {"type": "layer_norm", "width": 7, "eps": 1e-6}},
            r"connector\.context_norm has width 7, connector\.block\.cross_attention\.context_width is 5",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(node(**changes), path="connector")


def test_another_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"6 embeddings asked of a picture; connector\.queries is 7: set the process"):
        former()(seen(), 6)
