"""A loss or gradient that is not finite stops the run and can be computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from multimodal_zoo.objectives.contrastive import ContrastiveObjective
from multimodal_zoo.training.guard import NonFiniteLoss, replay

GUARD = {"guard": {"_target_": "multimodal_zoo.training.guard.FiniteGuard"}}


def test_a_bad_batch_is_named_and_replayed(fit, tiny, batches, tmp_path: Path) -> None:
    data = batches(8)
    data[2].images[3, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteLoss, match=r"step 2: loss is nan; batch of 8: pair_16, pair_17") as caught:
        fit(callbacks=GUARD, batches=data)
    path = tmp_path / "run" / "failure" / "step_00000002_rank_0.pt"
    assert str(path) in str(caught.value)
    saved = torch.load(path, weights_only=True)
    assert saved["batch"]["keys"] == data[2].keys
    outputs = replay(path, tiny(), ContrastiveObjective())
    assert torch.isnan(outputs["loss"])
    # with the pixel mended it is an ordinary step, from weights that the bad batch has not touched
    saved["batch"]["images"][3, 0, 0, 0] = 0.0
    torch.save(saved, path)
    first, second = (replay(path, tiny(), ContrastiveObjective())["loss"] for _ in range(2))
    assert torch.isfinite(first)
    assert torch.equal(first, second)


class _Explodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient * float("inf")


class Exploding(nn.Module):
    """A finite loss whose gradient is not."""

    def forward(self, model: nn.Module, batch: object) -> dict[str, Tensor]:
        return {"loss": _Explodes.apply(model.logit_scale) + 0 * model.text.weight.sum()}


def test_a_gradient_that_is_not_finite(fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodal_zoo.registry import OBJECTIVES

    monkeypatch.setitem(OBJECTIVES.module_dict, "exploding", Exploding)
    with pytest.raises(NonFiniteLoss, match=r"step 0: gradient norm is (nan|inf)"):
        fit(callbacks=GUARD, objective={"type": "exploding"})
    assert (tmp_path / "run" / "failure" / "step_00000000_rank_0.pt").exists()
