"""Norms, MLPs, and the parts of a residual branch that act while training."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.nn.mlp import ACTIVATIONS, Mlp, SwiGLU, quick_gelu
from multimodal_zoo.nn.norms import LayerNorm, RMSNorm
from multimodal_zoo.nn.regularize import DropPath, LayerScale, PatchDropout


def test_rms_norm_is_its_formula_and_casts_before_the_weight() -> None:
    norm = RMSNorm(6, eps=1e-6)
    norm.weight.data = torch.rand(6) + 0.5
    x = torch.randn(3, 6) * 100
    assert_close(norm(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight)
    assert_close(norm(x), torch.nn.functional.rms_norm(x, (6,), norm.weight, 1e-6))
    half = norm.half()(x.half())  # squares of these values overflow half precision
    exact = x.half().float()
    scaled = (exact * torch.rsqrt(exact.pow(2).mean(-1, keepdim=True) + 1e-6)).half()
    assert torch.equal(half, scaled * norm.weight)


def test_norms_keep_double_precision() -> None:
    x = torch.randn(4, 6, dtype=torch.float64)
    found = RMSNorm(6, 1e-6).double()(x)
    assert_close(found, x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt(), atol=1e-14, rtol=1e-14)
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-3).sqrt()
    assert_close(LayerNorm(6, 1e-3).double()(x), expected)


def test_quick_gelu_is_its_formula_with_its_gradient() -> None:
    x = torch.randn(50, dtype=torch.float64, requires_grad=True)
    expected = x * torch.sigmoid(1.702 * x)
    assert_close(quick_gelu(x), expected)
    (found,) = torch.autograd.grad(quick_gelu(x).pow(2).sum(), x)
    (wanted,) = torch.autograd.grad(expected.pow(2).sum(), x)
    assert_close(found, wanted)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_with_every_activation(activation: str) -> None:
    norm = LayerNorm(10, 1e-5)
    mlp = Mlp(6, 10, activation, inner_norm=norm)
    x = torch.randn(2, 3, 6)
    assert_close(mlp(x), mlp.fc2(norm(ACTIVATIONS[activation](mlp.fc1(x)))))


def test_swiglu_is_its_formula() -> None:
    norm = LayerNorm(10, 1e-6)
    mlp = SwiGLU(6, 10, bias=True, inner_norm=norm)
    x = torch.randn(2, 3, 6)
    gate = mlp.gate(x)
    assert_close(mlp(x), mlp.down(norm(gate * torch.sigmoid(gate) * mlp.up(x))))
    assert not [n for n in SwiGLU(6, 10, bias=False).state_dict() if "bias" in n]


def test_an_unknown_activation_lists_the_known_ones() -> None:
    with pytest.raises(LookupError, match="no function named 'gelo'; known: gelu"):
        Mlp(6, 10, "gelo")


def test_drop_path_drops_samples_and_keeps_the_mean() -> None:
    drop = DropPath(0.25)
    x = torch.ones(20000, 2, 3)
    out = drop(x)
    rows = out.flatten(1)
    assert torch.all((rows == 0).all(1) | (rows == 1 / 0.75).all(1))
    assert_close(out.mean(), torch.tensor(1.0), atol=0.02, rtol=0)
    assert torch.equal(drop.eval()(x), x)
    with pytest.raises(ValueError, match=r"drop_path is 1.0; expected a probability in \[0, 1\)"):
        DropPath(1.0)


def test_layer_scale_scales_channels() -> None:
    scale = LayerScale(4, 0.1)
    assert_close(scale(torch.ones(2, 3, 4)), torch.full((2, 3, 4), 0.1))


def test_patch_dropout_keeps_the_class_token_and_a_share_per_image() -> None:
    drop = PatchDropout(0.5)
    tokens = torch.randn(8, 17, 4)
    kept, keep = drop(tokens, 1)
    assert keep is not None
    assert kept.shape == (8, 9, 4)
    assert torch.equal(kept[:, 0], tokens[:, 0])
    assert all(len(set(row)) == 8 for row in keep.tolist())
    assert len({tuple(sorted(row)) for row in keep.tolist()}) > 1
    assert torch.equal(kept[3, 1:], tokens[3, keep[3] + 1])
    assert PatchDropout(0.99)(tokens, 1)[0].shape[1] == 2
    same, none = drop.eval()(tokens, 1)
    assert same is tokens
    assert none is None
