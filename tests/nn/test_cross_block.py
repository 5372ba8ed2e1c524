"""The block that reads a context: against its equations and against T5's own block, masks, gradients, bad widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import T5Config
from transformers.models.t5.modeling_t5 import T5LayerCrossAttention, T5LayerFF, T5LayerSelfAttention

from multimodal_zoo.nn.cross_block import CrossBlock
from multimodal_zoo.nn.masks import Causal
from multimodal_zoo.registry import build

WIDTH, CONTEXT, HEADS, HEAD = 6, 8, 3, 4


def node(dropout: float = 0.0, **changes: Any) -> dict[str, Any]:
    attention = {"width": WIDTH, "output_bias": False, "scale": 1.0}
    qkv = {
        "type": "separate_qkv", "width": WIDTH, "heads": HEADS, "head_dim": HEAD, "kv_heads": HEADS, "biased": [],
    }  # fmt: skip
    cross = {"context_width": CONTEXT, "heads": HEADS, "head_dim": HEAD, "bias": False}
    return {
        "type": "cross_block",
        "attention": {**attention, "type": "self_attention", "qkv": qkv},
        "cross_attention": {**attention, **cross, "type": "cross_attention"},
        "mlp": {"type": "mlp", "width": WIDTH, "hidden": 10, "activation": "relu", "bias": False},
        "norm": {"type": "rms_norm", "width": WIDTH, "eps": 1e-6},
        "layer_scale": {"type": "branch_dropout", "rate": dropout} if dropout else None,
        **changes,
    }


def block(**changes: Any) -> CrossBlock:
    torch.manual_seed(0)
    made = build(node(**changes), path="block")
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.5)
    return made.eval()


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(batch, 5, WIDTH), torch.randn(batch, 7, CONTEXT)


def test_the_equations() -> None:
    ours, (tokens, context) = block(), inputs()
    first = tokens + ours.attention(ours.norm_1(tokens), mask=Causal())
    second = first + ours.cross_attention(ours.norm_2(first), context)
    assert_close(ours(tokens, context, mask=Causal()), second + ours.mlp(ours.norm_3(second)))


def test_it_is_t5s_block() -> None:
    """The layers of transformers, with a causal mask and keys of the context's own width."""
    ours, (tokens, context) = block(), inputs()
    config = T5Config(
        d_model=WIDTH, d_kv=HEAD, num_heads=HEADS, d_ff=10, is_decoder=True, dropout_rate=0, layer_norm_epsilon=1e-6
    )
    theirs = (T5LayerSelfAttention(config, False), T5LayerCrossAttention(config), T5LayerFF(config))
    own, cross, forward = (layer.eval() for layer in theirs)
    for name in ("k", "v"):
        setattr(cross.EncDecAttention, name, torch.nn.Linear(CONTEXT, HEADS * HEAD, bias=False))
    pairs = {
        own.layer_norm: ours.norm_1, cross.layer_norm: ours.norm_2, forward.layer_norm: ours.norm_3,
        own.SelfAttention.q: ours.attention.qkv.query, own.SelfAttention.k: ours.attention.qkv.key,
        own.SelfAttention.v: ours.attention.qkv.value, own.SelfAttention.o: ours.attention.out,
        cross.EncDecAttention.q: ours.cross_attention.query, cross.EncDecAttention.k: ours.cross_attention.key,
        cross.EncDecAttention.v: ours.cross_attention.value, cross.EncDecAttention.o: ours.cross_attention.out,
        forward.DenseReluDense.wi: ours.mlp.fc1, forward.DenseReluDense.wo: ours.mlp.fc2,
    }  # fmt: skip
    for layer, source in pairs.items():
        layer.load_state_dict(source.state_dict())
    mask = torch.full((5, 5), float("-inf")).triu(1)[None, None]
    with torch.no_grad():
        states = own(tokens, attention_mask=mask)[0]
        states = cross(states, key_value_states=context)[0]
        assert_close(ours(tokens, context, mask=Causal()), forward(states), atol=1e-5, rtol=1e-5)


def test_tokens_see_no_later_tokens_and_all_of_the_context() -> None:
    ours, (tokens, context) = block(), inputs(1)
    tokens, context = tokens.requires_grad_(), context.requires_grad_()
    ours(tokens, context, mask=Causal())[0, 2].sum().backward()
    assert tokens.grad[0, :3].abs().sum(-1).all()
    assert not tokens.grad[0, 3:].any()
    assert context.grad[0].abs().sum(-1).all()


def test_rows_do_not_meet() -> None:
    ours, (tokens, context) = block(), inputs(3)
    found = ours(tokens, context, mask=Causal())
    for row in range(3):
        assert_close(found[row], ours(tokens[row : row + 1], context[row : row + 1], mask=Causal())[0])


def test_dropout_acts_on_each_branch_while_training_only() -> None:
    ours, (tokens, context) = block(dropout=0.5), inputs()
    assert_close(ours(tokens, context), block()(tokens, context))
    assert not torch.equal(ours.train()(tokens, context), ours(tokens, context))


@pytest.mark.parametrize(
    ("part", "change"),
    [("mlp", {"width": 9}), ("norm", {"width": 9}), ("cross_attention", {"width": 9})],
)
def test_parts_of_other_widths_are_refused(part: str, change: dict[str, Any]) -> None:
    config = node()
    config[part] = {**config[part], **change}
    with pytest.raises(ValueError, match=rf"cross_block\.{part} has width 9, cross_block\.attention has width 6"):
        build(config, path="block")
