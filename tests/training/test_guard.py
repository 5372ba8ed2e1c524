"""A loss or gradient that is not finite stops the run and can be computed again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from multimodal_zoo.objectives.contrastive import ContrastiveObjective
from multimodal_zoo.training.guard import FiniteGuard, NonFiniteLoss, replay
from multimodal_zoo.training.objective_module import ObjectiveModule

GUARD = {"guard": {"_target_": "multimodal_zoo.training.guard.FiniteGuard"}}


def test_a_bad_batch_is_named_and_replayed(fit, tiny, batches, tmp_path: Path) -> None:
    data = batches(8)
    data[2].images[3, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteLoss, match=r"step 2: loss is nan; batch of 8: pair_16, pair_17") as caught:
        fit(callbacks=GUARD, batches=data)
    path = tmp_path / "run" / "failure" / "step_00000002_rank_0.pt"
    assert str(path) in str(caught.value)
    saved = torch.load(path, weights_only=True)
    assert saved["batches"][0]["keys"] == data[2].keys
    outputs = replay(path, tiny(), ContrastiveObjective())
    assert torch.isnan(outputs["loss"])
    # with the pixel mended it is an ordinary step, from weights that the bad batch has not touched
    saved["batches"][0]["images"][3, 0, 0, 0] = 0.0
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


def test_clipping_by_value_is_watched_as_well(fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multimodal_zoo.registry import OBJECTIVES

    monkeypatch.setitem(OBJECTIVES.module_dict, "exploding", Exploding)
    with pytest.raises(NonFiniteLoss, match=r"step 0: gradient norm is (nan|inf)"):
        fit(callbacks=GUARD, objective={"type": "exploding"}, trainer={"gradient_clip_algorithm": "value"})


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The gradients of each step as the optimiser gets them."""
    seen: list[dict[str, Tensor]] = []
    clip = ObjectiveModule.configure_gradient_clipping

    def watch(self: ObjectiveModule, *args: object, **options: object) -> None:
        clip(self, *args, **options)
        seen.append({name: p.grad.clone() for name, p in self.model.named_parameters()})

    monkeypatch.setattr(ObjectiveModule, "configure_gradient_clipping", watch)
    return seen


def test_clipping_by_value_clips(fit, gradients: list[dict[str, Tensor]]) -> None:
    optim = {"_target_": "torch.optim.SGD", "lr": 1.0, "weight_decay": 0.0, "fused": False}
    changes = {"gradient_clip_algorithm": "value", "gradient_clip_val": 1e-4, "max_steps": 3}
    fit(optim=optim, trainer=changes)
    assert len(gradients) == 3
    for step in gradients:
        assert max(float(gradient.abs().max()) for gradient in step.values()) == pytest.approx(1e-4)


def test_all_batches_of_an_accumulated_step_are_replayed(
    fit, tiny, batches, gradients: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    data = batches(4)
    data[5].images[0] = float("nan")  # the last of the second step's three
    trainer = {"accumulate_grad_batches": 3, "gradient_clip_val": None, "max_steps": 2}
    with pytest.raises(NonFiniteLoss, match=r"step 1: loss is nan; 3 batches of 12: pair_12, pair_13"):
        fit(callbacks=GUARD, batches=data, trainer=trainer)
    path = tmp_path / "run" / "failure" / "step_00000001_rank_0.pt"
    saved = torch.load(path, weights_only=True)
    assert [batch["keys"] for batch in saved["batches"]] == [batch.keys for batch in data[3:]]
    assert saved["note"] == "replay computes the step again"
    saved["batches"][2]["images"][0] = 0.0
    torch.save(saved, path)
    model = tiny()
    replay(path, model, ContrastiveObjective())
    # what a run with the mended pixel has in its gradients at the end of that step
    data[5].images[0] = 0.0
    gradients.clear()
    fit("mended", batches=data, trainer=trainer)
    torch.testing.assert_close({name: p.grad for name, p in model.named_parameters()}, gradients[1])


@pytest.mark.parametrize("steps", [0, -1])
def test_a_guard_that_never_looks_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=rf"callbacks.guard.every_n_steps is {steps}; it must be at least 1"):
        FiniteGuard(every_n_steps=steps)


def test_one_rank_of_several_says_what_it_can_replay(tiny, batches, tmp_path: Path) -> None:
    """Another rank's loss was not finite; this one's is printed as it is, not as float16 scales it."""
    strategy = SimpleNamespace(reduce_boolean_decision=lambda ok, all: False, broadcast=lambda value: value)
    trainer = SimpleNamespace(
        strategy=strategy,
        precision_plugin=SimpleNamespace(scaler=SimpleNamespace(get_scale=lambda: 1024.0)),
        global_step=4,
        global_rank=1,
        world_size=2,
        default_root_dir=str(tmp_path),
        accumulate_grad_batches=2,
    )
    module = SimpleNamespace(model=tiny(), objective=ContrastiveObjective(), hparams={})
    guard = FiniteGuard(every_n_steps=2)
    guard.on_train_batch_start(trainer, module, batches(8)[0], 0)
    with pytest.raises(NonFiniteLoss, match=r"loss of rank 1 is 1.5; .*(\n.*)the other ranks' features"):
        guard.on_before_backward(trainer, module, torch.tensor(1.5 * 1024 / 2))
    saved = torch.load(tmp_path / "failure" / "step_00000004_rank_1.pt", weights_only=True)
    assert saved["ranks"] == 2
    assert "the other ranks' features" in saved["note"]
