"""Masked image modelling's loss, alone and over two processes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from forked import forked
from multimodal_zoo.checkpoints.tables.eva_mim_config import student_node
from multimodal_zoo.nn.processes import rank, world_size
from multimodal_zoo.objectives.batch import MaskedImageBatch
from multimodal_zoo.objectives.masked_image import MaskedImageObjective, masked_cosine_loss
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model
from patch_teachers import teacher_node

SIZES = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0}
LOCAL = 3


def student(**changes: Any) -> nn.Module:
    return build_model(student_node({**SIZES, "predict_feature_dim": 6, "subln": True, "naiveswiglu": True, **changes}))


def objective(**changes: Any) -> MaskedImageObjective:
    torch.manual_seed(7)
    return MaskedImageObjective(build(teacher_node({**SIZES, "num_classes": 6, **changes})))


def batch(*masked: int) -> MaskedImageBatch:
    """Images with so many masked patches each."""
    images = torch.randn(len(masked), 3, 16, 16, generator=torch.Generator().manual_seed(3))
    mask = torch.stack([torch.arange(16) < count for count in masked])
    return MaskedImageBatch(images, mask, [str(i) for i in range(len(masked))])


class Step(nn.Module):
    """What DistributedDataParallel wraps: model and objective."""

    def __init__(self, model: nn.Module, objective: nn.Module) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, batch: MaskedImageBatch) -> dict[str, Tensor]:
        return self.objective(self.model, batch)


def gradients(whole: MaskedImageBatch) -> dict[str, Tensor]:
    """Loss and gradients of a step; in a world of several processes, of this one's part."""
    step: nn.Module = Step(student(), objective())
    if world_size() > 1:
        own = slice(rank() * LOCAL, (rank() + 1) * LOCAL)
        whole = MaskedImageBatch(whole.images[own], whole.mask[own], whole.keys[own])
        step = DistributedDataParallel(step)
    loss = step(whole)["loss"]
    loss.backward()
    named = {name.removeprefix("module."): p for name, p in step.named_parameters()}
    return {"loss": loss.detach(), **{name: p.grad for name, p in named.items() if p.grad is not None}}


#: Masked patches of each image: differing between the ranks, none at all on the second, none anywhere.
CASES = ((5, 1, 16, 2, 3, 7), (4, 0, 1, 0, 0, 0), (0, 0, 0, 0, 0, 0))


def all_gradients() -> list[dict[str, Tensor]]:
    return [gradients(batch(*case)) for case in CASES]


@pytest.mark.multiprocess
def test_two_processes_are_one() -> None:
    runs = forked(2, all_gradients)
    for number, case in enumerate(CASES):
        one = gradients(batch(*case))
        first, second = (run[number] for run in runs)
        assert_close((first["loss"] + second["loss"]) / 2, one["loss"], atol=1e-6, rtol=1e-6)
        assert first.keys() == one.keys()
        for name in first.keys() - {"loss"}:
            assert_close(first[name], one[name], atol=1e-6, rtol=1e-5)
            assert_close(first[name], second[name])


def test_the_loss_is_minus_the_mean_cosine_in_float32() -> None:
    prediction, target = torch.randn(7, 5), torch.randn(7, 5)
    expected = -(F.normalize(prediction, dim=1) * F.normalize(target, dim=1)).sum(1).mean()
    assert_close(masked_cosine_loss(prediction, target), expected)
    assert_close(masked_cosine_loss(prediction * 3, target / 5), expected)
    half = masked_cosine_loss(prediction.bfloat16(), target.bfloat16())
    assert half.dtype == torch.float32
    assert_close(half, expected, atol=5e-3, rtol=0)
    assert masked_cosine_loss(prediction[:0], target[:0]) == 0
    with pytest.raises(ValueError, match=r"prediction \(7, 5\), target \(6, 5\)"):
        masked_cosine_loss(prediction, target[:6])


def test_an_image_alone_and_one_without_masked_patches() -> None:
    model, loss_of = student(), objective()
    assert loss_of(model, batch(4))["loss"].isfinite()
    mixed = loss_of(model, batch(4, 0))
    assert_close(mixed["masked_share"], torch.tensor(4 / 32))
    both = batch(4, 0)
    alone = MaskedImageBatch(both.images[:1], both.mask[:1], both.keys[:1])
    assert_close(mixed["loss"], loss_of(model, alone)["loss"])


def test_the_teacher_is_no_part_of_what_trains_or_is_saved() -> None:
    loss_of = objective()
    assert not list(loss_of.parameters())
    assert not loss_of.state_dict()
    loss_of.train()
    assert not loss_of.teacher.training
    before = loss_of.teacher.encoder.patches.weight.clone()
    loss_of.double()
    assert loss_of.teacher.encoder.patches.weight.dtype == torch.float64, "it follows to another precision or device"
    assert_close(loss_of.teacher.encoder.patches.weight.float(), before)


def test_grids_and_widths_that_differ_are_named() -> None:
    with pytest.raises(ValueError, match=r"student has a grid of 4x4 patches, the teacher one of 2x2"):
        objective(patch_size=8)(student(), batch(4, 4))
    with pytest.raises(ValueError, match=r"features are 6 wide, the student predicts 9.*target_width"):
        objective()(student(predict_feature_dim=9), batch(4, 4))


def test_a_batch_that_does_not_fit_is_refused() -> None:
    good = batch(2, 3)
    assert len(good.to("cpu")) == 2
    with pytest.raises(ValueError, match=r"as many rows"):
        MaskedImageBatch(good.images, good.mask[:1], good.keys)
    with pytest.raises(ValueError, match=r"mask must be bool"):
        MaskedImageBatch(good.images, good.mask.float(), good.keys)
