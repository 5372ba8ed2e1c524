from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.nn.attention import SelfAttention
from multimodal_zoo.nn.mlp import Mlp, SwiGLU
from multimodal_zoo.nn.norms import LayerNorm, RMSNorm
from multimodal_zoo.nn.projections import PackedProjection
from multimodal_zoo.nn.recompute import recompute
from multimodal_zoo.nn.transformer import PreNormBlock, Transformer


def parts() -> dict[str, nn.Module]:
    return {
        "mlp": Mlp(6, 10, "gelu"),
        "mlp with a norm inside": Mlp(6, 10, "quick_gelu", inner_norm=LayerNorm(10, 1e-6)),
        "swiglu": SwiGLU(6, 10, bias=True),
        "swiglu with a norm inside": SwiGLU(6, 10, bias=True, inner_norm=LayerNorm(10, 1e-6)),
        "rms norm": RMSNorm(6, 1e-6),
    }


def plain(part: nn.Module, x: Tensor) -> Tensor:
    """What the part computes, written out with every result kept."""
    if isinstance(part, Mlp):
        return part.fc2(part.inner_norm(part.act(part.fc1(x))))
    if isinstance(part, SwiGLU):
        return part.down(part.inner_norm(F.silu(part.gate(x)) * part.up(x)))
    assert isinstance(part, RMSNorm)
    return x * (x.square().mean(-1, keepdim=True) + part.eps).rsqrt() * part.weight


def kept(run, x: Tensor, part: nn.Module) -> int:
    """Bytes that a real forward pass keeps."""
    storages: dict[int, int] = {}
    owned = {parameter.untyped_storage().data_ptr() for parameter in part.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in owned:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run(x)
    del result
    return sum(storages.values())


@pytest.mark.parametrize("name", parts())
def test_gradients_are_those_of_the_plain_formula(name):
    part = parts()[name].double()
    x = torch.randn(3, 5, 6, dtype=torch.float64, requires_grad=True)
    ours, theirs = part(x), plain(part, x)
    assert_close(ours, theirs, rtol=0, atol=1e-15)
    weight = torch.randn_like(ours)
    wanted = [x, *part.parameters()]
    found, expected = (torch.autograd.grad((y * weight).sum(), wanted) for y in (ours, theirs))
    assert_close(found, expected, rtol=1e-12, atol=1e-14)
    torch.autograd.gradcheck(part, (x,))


@pytest.mark.parametrize(
    ("part", "units"),
    [
        (Mlp(64, 256, "gelu", inner_norm=LayerNorm(256, 1e-6)), 1 + 4),  # the input, the hidden tensor
        (SwiGLU(64, 256, bias=True, inner_norm=LayerNorm(256, 1e-6)), 1 + 4 + 4),  # the input, gate and up
        (RMSNorm(64, 1e-6), 1),
    ],
)
def test_only_the_inputs_are_kept(part, units):
    x = torch.randn(2, 33, 64, requires_grad=True)
    assert kept(part, x, part) == units * x.nbytes
    assert kept(lambda x: plain(part, x), x, part) > units * x.nbytes


def test_half_precision_keeps_no_copy_in_float32():
    norm = RMSNorm(64, 1e-6).bfloat16()
    x = torch.randn(2, 33, 64, dtype=torch.bfloat16, requires_grad=True)
    assert kept(norm, x, norm) == x.nbytes


def test_the_last_matrix_product_is_not_repeated():
    products = 0

    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            nonlocal products
            result = super().forward(x)
            products += 1
            return result

    part = Mlp(6, 10, "gelu")
    part.fc2 = Counted(10, 6)
    part(torch.randn(4, 6)).sum().backward()
    assert products == 1
    assert part.fc2.weight.grad is not None


@pytest.mark.parametrize("name", parts())
def test_transforms_of_torch_func_see_through_it(name):
    part, x = parts()[name].double(), torch.randn(3, 6, dtype=torch.float64)
    weights = dict(part.named_parameters())

    def loss(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(part, weights, (row,)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    part(x).square().sum().backward()
    for key, parameter in part.named_parameters():
        assert_close(each[key].sum(0), parameter.grad, rtol=1e-12, atol=1e-13)


def test_nothing_is_kept_apart_where_no_gradient_flows():
    x = torch.randn(4, 6)
    assert recompute(torch.sin, x).grad_fn is None
    with torch.no_grad():
        assert recompute(torch.sin, x.requires_grad_()).grad_fn is None


@pytest.mark.parametrize("autocast", [False, True])
def test_blocks_that_are_computed_again_nest(autocast):
    def run(checkpoint: str) -> list[Tensor]:
        torch.manual_seed(0)
        block = PreNormBlock(
            SelfAttention(16, PackedProjection(16, 2, 8, 2, bias=True)),
            SwiGLU(16, 24, bias=True, inner_norm=LayerNorm(24, 1e-6)),
            RMSNorm(16, 1e-6),
        )
        stack = Transformer(block, 3, checkpoint=checkpoint)
        x = torch.randn(2, 5, 16, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = stack(x).float().square().mean()
        loss.backward()
        return [x.grad, *(parameter.grad for parameter in stack.parameters())]

    for found, expected in zip(run("block"), run("none"), strict=True):
        assert_close(found, expected, rtol=0, atol=0)
