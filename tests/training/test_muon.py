"""Muon against its definition, and its AdamW part against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from multimodal_zoo.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 24), (8, 40), (40, 8), (1, 5)])
def test_singular_values_are_pushed_towards_one(shape) -> None:
    matrix = torch.randn(shape)
    result = orthogonalise(matrix)
    assert result.shape == matrix.shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.4
    assert values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.nn.functional.cosine_similarity(result.flatten(), (u @ v).flatten(), dim=0) > 0.95


def test_vectors_and_fallback_groups_step_as_torchs_adamw() -> None:
    options = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.98), "eps": 1e-6}
    ours = [torch.nn.Parameter(torch.randn(5)), torch.nn.Parameter(torch.randn(4, 3))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    muon = Muon([{"params": ours[:1]}, {"params": ours[1:], "fallback": True}], **options)
    adamw = torch.optim.AdamW(theirs, **options)
    for _ in range(4):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        muon.step(), adamw.step()
    for a, b in zip(ours, theirs, strict=True):
        assert_close(a, b)


def test_a_matrix_steps_by_its_orthogonalised_nesterov_momentum() -> None:
    weight = torch.nn.Parameter(torch.randn(6, 2, 3, 3))
    start, muon = weight.detach().clone(), Muon([weight], lr=0.1, weight_decay=0.5, momentum=0.9)
    weight.grad = torch.randn_like(weight)
    mean = 0.1 * weight.grad
    expected = orthogonalise((0.1 * weight.grad + 0.9 * mean).flatten(1)) * 0.2 * 18**0.5
    muon.step()
    assert_close(weight.detach(), start * (1 - 0.05) - 0.1 * expected.view_as(start))


def test_state_survives_saving_and_loading() -> None:
    def run(steps: int, muon: Muon, parameters: list[torch.nn.Parameter], offset: int) -> None:
        for step in range(steps):
            generator = torch.Generator().manual_seed(offset + step)
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=generator)
            muon.step()

    def fresh() -> tuple[list[torch.nn.Parameter], Muon]:
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(4, 4)), torch.nn.Parameter(torch.randn(4))]
        return parameters, Muon(parameters, lr=0.05)

    whole, muon = fresh()
    run(4, muon, whole, 0)
    first, muon = fresh()
    run(2, muon, first, 0)
    second, resumed = fresh()
    resumed.load_state_dict(muon.state_dict())
    with torch.no_grad():
        for a, b in zip(second, first, strict=True):
            a.copy_(b)
    run(2, resumed, second, 2)
    for a, b in zip(whole, second, strict=True):
        assert torch.equal(a, b)


def test_what_has_no_gradient_is_left_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    assert Muon([weight], lr=1.0, weight_decay=1.0).step() is None
    assert torch.equal(weight, torch.ones(2, 2))


def test_sharded_parameters_are_refused_with_the_way_out(tmp_path) -> None:
    from torch import distributed as dist
    from torch.distributed.tensor import distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        mesh = dist.init_device_mesh("cpu", (1,))
        weight = torch.nn.Parameter(distribute_tensor(torch.ones(4, 3), mesh))
        with pytest.raises(ValueError, match=r"optim: .*\(4, 3\).*optim=adamw, or trainer=ddp"):
            Muon([torch.nn.Parameter(torch.ones(2, 2)), weight], lr=0.1)
    finally:
        dist.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_accelerator_steps_like_the_cpu_also_after_loading() -> None:
    start = [torch.randn(4, 4), torch.randn(4)]
    results = []
    for device in ("cpu", "cuda"):
        parameters = [torch.nn.Parameter(p.to(device, copy=True)) for p in start]
        muon = Muon(parameters, lr=0.05)
        for step in range(4):
            if step == 2:
                state = muon.state_dict()
                muon = Muon(parameters, lr=0.05)
                muon.load_state_dict(state)
            for p, s in zip(parameters, start, strict=True):
                p.grad = (s * (step + 1)).to(device)
            muon.step()
        results.append([p.detach().cpu() for p in parameters])
    assert_close(*results, atol=1e-5, rtol=1e-4)
