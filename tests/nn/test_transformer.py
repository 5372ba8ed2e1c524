"""Blocks and the stack."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from multimodal_zoo.nn.attention import SelfAttention
from multimodal_zoo.nn.cache import KVCache
from multimodal_zoo.nn.init import ClipInit, ScaledInit
from multimodal_zoo.nn.masks import Causal
from multimodal_zoo.nn.mlp import Mlp, SwiGLU
from multimodal_zoo.nn.norms import LayerNorm, RMSNorm
from multimodal_zoo.nn.projections import PackedProjection
from multimodal_zoo.nn.regularize import LayerScale
from multimodal_zoo.nn.rotary import Rotary1d
from multimodal_zoo.nn.transformer import PostNormBlock, PreNormBlock, Transformer

Kind = Callable[..., nn.Module]


def block(kind: Kind = PreNormBlock, scale: nn.Module | None = None, kernel: str = "sdpa") -> nn.Module:
    attention = SelfAttention(16, PackedProjection(16, 4, 6, 2, True), kernel=kernel)
    return kind(attention, Mlp(16, 24, "gelu"), LayerNorm(16, 1e-6), scale)


def test_pre_norm_block_is_its_equations() -> None:
    part = block(scale=LayerScale(16, 0.3))
    x = torch.randn(2, 5, 16)
    y = x + 0.3 * part.attention(part.norm_1(x), mask=Causal())
    assert_close(part(x, mask=Causal()), y + 0.3 * part.mlp(part.norm_2(y)))


def test_post_norm_block_leaves_the_stream_unnormalised() -> None:
    part = block(PostNormBlock)
    part.norm_1.weight.data *= 2
    x = torch.randn(2, 5, 16)
    y = x + part.norm_1(part.attention(x))
    assert_close(part(x), y + part.norm_2(part.mlp(y)))


def test_parts_of_other_widths_are_refused() -> None:
    attention = SelfAttention(16, PackedProjection(16, 4, 4, 4, True))
    with pytest.raises(ValueError, match=r"block.mlp has width 12, block.attention has width 16"):
        PreNormBlock(attention, Mlp(12, 24, "gelu"), LayerNorm(16, 1e-6))
    with pytest.raises(ValueError, match=r"block.norm has width 8"):
        PreNormBlock(attention, Mlp(16, 24, "gelu"), RMSNorm(8, 1e-6))


def test_blocks_of_a_stack_have_weights_of_their_own() -> None:
    prototype = block()
    stack = Transformer(prototype, depth=3)
    first = [layer.attention.qkv.weight for layer in (*stack.layers, prototype)]
    assert len({id(w) for w in first}) == 4
    assert not torch.equal(first[0], first[1])
    x = torch.randn(2, 5, 16)
    expected = x
    for layer in stack.layers:
        expected = layer(expected)
    assert torch.equal(stack(x), expected)


def test_drop_path_rises_linearly() -> None:
    rates = [layer.drop_path.rate for layer in Transformer(block(), depth=5, drop_path=0.4).layers]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert Transformer(block(), depth=1, drop_path=0.4).layers[0].drop_path.rate == 0.0
    stack = Transformer(block(), depth=2, drop_path=0.9)
    x = torch.randn(64, 3, 16)
    untouched = (stack(x) == stack.layers[0](x)).flatten(1).all(1)
    assert 40 <= int(untouched.sum()) <= 62  # the second block drops both branches of 81 % of the samples


@pytest.mark.parametrize("policy", ["block", "around_attention"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient_and_no_random_number(policy: str, dropout: float) -> None:
    plain = Transformer(block(), depth=3, drop_path=0.5)
    again = Transformer(block(), depth=3, drop_path=0.5, checkpoint=policy)
    for stack in (plain, again):
        for layer in stack.layers:
            layer.attention.dropout = dropout
    again.load_state_dict(plain.state_dict())
    gradients = []
    for stack in (plain, again):
        torch.manual_seed(5)
        stack(torch.randn(4, 3, 16), mask=Causal()).pow(2).sum().backward()
        gradients.append([p.grad for p in stack.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointing_keeps_fewer_tensors(frozen: bool) -> None:
    """Also in a frozen stack, which is in evaluation mode, where gradients pass through it."""
    sizes = []
    for policy in ("none", "block"):
        stack = Transformer(block(), depth=4, checkpoint=policy)
        if frozen:
            stack.requires_grad_(False).eval()
        saved: list[int] = []

        def pack(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved.append(tensor.numel())
            return tensor

        inputs = torch.randn(4, 9, 16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            stack(inputs)
        sizes.append(sum(saved))
    assert sizes[1] < sizes[0] / 5


def test_attention_is_not_computed_again_where_it_is_kept() -> None:
    class Calls(TorchDispatchMode):
        attentions = 0

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.attentions += "attention_for_cpu.default" in str(function)
            return function(*args, **(kwargs or {}))

    counts = {}
    for policy in ("block", "around_attention"):
        stack = Transformer(block(), depth=2, checkpoint=policy)
        with Calls() as calls:
            stack(torch.randn(2, 9, 16), mask=Causal()).sum().backward()
        counts[policy] = calls.attentions
    assert counts == {"block": 4, "around_attention": 2}


def test_intermediates_are_the_stream_after_each_block() -> None:
    stack = Transformer(block(), depth=4).eval()
    x = torch.randn(2, 5, 16)
    last, second = stack.intermediates(x, [-1, 1])
    assert torch.equal(last, stack(x))
    assert torch.equal(second, stack.layers[1](stack.layers[0](x)))
    with pytest.raises(ValueError, match="expected 0 to 3"):
        stack.intermediates(x, [4])


@pytest.mark.parametrize("kernel", ["sdpa", "math"])
def test_a_cached_stack_gives_the_full_forward(kernel: str) -> None:
    stack, rotary = Transformer(block(kernel=kernel), depth=3).double(), Rotary1d(6)
    x = torch.randn(2, 6, 16, dtype=torch.float64)
    whole = stack(x, mask=Causal(), rotation=rotary(torch.arange(6)))
    cache = KVCache(3, 2, 2, capacity=8, head_dim=6, dtype=torch.float64)
    with torch.no_grad():
        parts = [stack(x[:, :3], mask=Causal(), rotation=rotary(torch.arange(3)), cache=cache)]
        for i in range(3, 6):
            rotation = rotary(torch.tensor([i]))
            parts.append(stack(x[:, i : i + 1], mask=Causal(offset=len(cache)), rotation=rotation, cache=cache))
    assert_close(torch.cat(parts, 1), whole)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="it takes none, block"):
        Transformer(block(), depth=2, checkpoint="all")
    with pytest.raises(ValueError, match="at least one block"):
        Transformer(block(), depth=0)
    with pytest.raises(ValueError, match=r"blocks.drop_path is 1.5"):
        Transformer(block(), depth=2, drop_path=1.5)


def test_clip_init_has_the_published_deviations() -> None:
    attention = SelfAttention(64, PackedProjection(64, 4, 16, 4, True))
    stack = Transformer(PreNormBlock(attention, Mlp(64, 256, "gelu"), LayerNorm(64, 1e-5)), depth=8, init=ClipInit())
    layer = stack.layers[3]
    for weight, std in (
        (layer.attention.qkv.weight, 64**-0.5),
        (layer.attention.out.weight, 64**-0.5 * 16**-0.5),
        (layer.mlp.fc1.weight, 128**-0.5),
        (layer.mlp.fc2.weight, 64**-0.5 * 16**-0.5),
    ):
        assert_close(weight.std().item(), std, atol=0, rtol=0.06)
    assert layer.attention.qkv.bias.abs().max() == layer.attention.out.bias.abs().max() == 0


def test_scaled_init_shrinks_the_writing_layers_with_depth() -> None:
    attention = SelfAttention(64, PackedProjection(64, 4, 16, 4, True))
    stack = Transformer(
        PreNormBlock(attention, SwiGLU(64, 96, bias=True), LayerNorm(64, 1e-5)), depth=4, init=ScaledInit(0.02)
    )
    for i, layer in enumerate(stack.layers, start=1):
        for weight in (layer.attention.out.weight, layer.mlp.down.weight):
            assert_close(weight.std().item(), 0.02 / (2 * i) ** 0.5, atol=0, rtol=0.06)
        assert_close(layer.mlp.gate.weight.std().item(), 0.02, atol=0, rtol=0.06)


def test_a_stack_on_meta_allocates_nothing() -> None:
    with torch.device("meta"):
        stack = Transformer(block(scale=LayerScale(16, 0.1)), depth=2, init=ClipInit())
        assert stack(torch.empty(2, 5, 16), mask=Causal()).shape == (2, 5, 16)
    assert all(p.is_meta for p in copy.deepcopy(stack).parameters())
