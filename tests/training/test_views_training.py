"""Training with several views and supervisions: what is logged, resumed, replayed, averaged and accumulated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.registry import build
from multimodal_zoo.training.guard import NonFiniteLoss, replay
from multimodal_zoo.training.idle import covering, idle_parameters
from multimodal_zoo.training.rank_state import RankState, rank_buffers

EMA = {"_target_": "multimodal_zoo.training.ema.Ema", "decay": 0.9}
CHECKPOINTS = {"_target_": "multimodal_zoo.training.checkpointing.Checkpoints", "every_n_steps": 2, "keep": 9}
GUARD = {"guard": {"_target_": "multimodal_zoo.training.guard.FiniteGuard"}}
LOWER = {"_target_": "torch.optim.AdamW", "lr": 3e-3, "weight_decay": 0.1}


@pytest.mark.parametrize("method", ["clip", "slip", "filip", "declip", "defilip"])
def test_each_method_trains_and_logs_its_parts(fit, views, tmp_path: Path, method: str) -> None:
    node = views.objective(f"+objective={method}")
    trainer = {"max_steps": 13, "max_epochs": -1}
    module, _ = fit(model=views.model(), objective=node, batches=views.batches(8), optim=LOWER, trainer=trainer)
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/loss" in row]
    assert {f"train/{part}" for part in node["parts"]} <= set(rows[0])
    for row in rows:
        total = sum(weight * row[f"train/{name}"] for name, weight in node["weights"].items())
        assert row["train/loss"] == pytest.approx(total, rel=1e-5)
    assert sum(row["train/loss"] for row in rows[-3:]) < sum(row["train/loss"] for row in rows[:3])
    if "nearest_neighbour" in node["parts"]:
        queue = module.objective.parts["nearest_neighbour"].queue
        assert int(queue.pointer) == 16  # 26 batches of 8 in 20 places: every third falls off the end


def test_a_sixth_method_is_composed_on_the_command_line(fit, views, tmp_path: Path) -> None:
    added = ["+objective=clip", "+supervision@objective.parts.simsiam=simsiam", "+objective.weights.simsiam=0.3"]
    node = views.objective(*added)
    fit(model=views.model(), objective=node, batches=views.batches(8), optim=LOWER, trainer={"max_steps": 2})
    row = read_metrics(tmp_path / "run" / "metrics.csv")[0]
    assert row["train/loss"] == pytest.approx(row["train/image_text"] + 0.3 * row["train/simsiam"], rel=1e-5)


def test_resuming_is_exact_with_a_queue(fit, views, tmp_path: Path) -> None:
    changes = {
        "objective": views.objective("+objective=defilip"),
        "callbacks": {"checkpoint": CHECKPOINTS, "ema": EMA},
        "trainer": {"max_steps": 5, "max_epochs": -1, "val_check_interval": 3},
        "optim": LOWER,
    }
    data = {"batches": views.batches(8), "validation": views.batches(8, seed=1)}
    whole, _ = fit("whole", model=views.model(), **data, **changes)
    checkpoint = tmp_path / "whole" / "checkpoints" / "step_00000002.ckpt"
    torch.rand(7)
    resumed, _ = fit("resumed", checkpoint=checkpoint, model=views.model(), **data, **changes)
    state = whole.state_dict()
    assert "objective.parts.nearest_neighbour.queue.entries" in state
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in state.items())


def test_validation_leaves_the_queue_alone(fit, views) -> None:
    changes = {"objective": views.objective("+objective=declip"), "optim": LOWER, "batches": views.batches(8)}
    trainer = {"max_steps": 4, "max_epochs": -1}
    found = [
        fit(folder, model=views.model(), validation=validation, trainer=trainer, **changes)[0].state_dict()
        for folder, validation in (("with", views.batches(8, seed=1)), ("without", None))
    ]
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


def test_a_failed_step_is_replayed_from_the_queue_before_it(fit, views, tmp_path: Path) -> None:
    data = views.batches(8)
    data[2].images["first"][3, 0, 0, 0] = float("inf")
    node = views.objective("+objective=declip")
    with pytest.raises(NonFiniteLoss, match=r"step 2: loss is nan; batch of 8: pair_16"):
        fit(callbacks=GUARD, batches=data, objective=node, model=views.model(), optim=LOWER)
    path = tmp_path / "run" / "failure" / "step_00000002_rank_0.pt"
    model, objective = views.model(), build(node, path="objective")
    assert torch.isnan(replay(path, model, objective)["loss"])
    before, after = (fit(f"{n}", batches=views.batches(8), objective=node, model=views.model(), optim=LOWER,
                         trainer={"max_steps": n})[0] for n in (2, 3))  # fmt: skip
    saved = torch.load(path, weights_only=True)["objective"]
    for name, tensor in before.objective.state_dict().items():
        assert torch.equal(saved[name], tensor), name
    assert not torch.equal(saved["parts.nearest_neighbour.queue.pointer"],
                           after.objective.state_dict()["parts.nearest_neighbour.queue.pointer"])  # fmt: skip


def test_accumulation_averages_batches_of_views(fit, views) -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.0, "fused": False}
    flat = {"_target_": "multimodal_zoo.training.schedule.Constant", "warmup": 0}
    node = views.objective("+objective=clip")
    trainer = {"max_steps": 1, "accumulate_grad_batches": 2, "gradient_clip_val": None}
    module, _ = fit(
        model=views.model(), objective=node, batches=views.batches(8), trainer=trainer, optim=sgd, schedule=flat
    )
    model, objective = views.model(), build(node, path="objective")
    (sum(objective(model, batch)["loss"] for batch in views.batches(8)[:2]) / 2).backward()
    trained = module.model.state_dict()
    for name, parameter in model.named_parameters():
        step = 0 if parameter.grad is None else 0.1 * parameter.grad
        torch.testing.assert_close(trained[name], parameter.detach() - step, atol=1e-6, rtol=1e-5)


def test_what_the_model_lacks_is_told_when_training_is_set_up(fit, views) -> None:
    lacking = views.model("model.heads.simsiam=null")
    with pytest.raises(ValueError, match=r"objective.parts.simsiam: needs model.heads.simsiam.*\+head@model.heads"):
        fit(model=lacking, objective=views.objective("+objective=declip"), batches=views.batches(8))
    with pytest.raises(ValueError, match=r"objective.parts.nearest_neighbour: queue.width is 16"):
        fit(model=views.model("model.embed_dim=20"), objective=views.objective("+objective=declip"))


def test_layers_that_nothing_uses_are_named(fit, views, caplog: pytest.LogCaptureFixture) -> None:
    changes = {
        "objective": views.objective("+objective=clip"),
        "batches": views.batches(8),
        "trainer": {"max_steps": 2},
    }
    module, _ = fit(model=views.model(), optim=LOWER, **changes)
    told = [record.message for record in caplog.records if "no gradient reaches" in record.message]
    assert len(told) == 1
    assert "freeze [heads.*]" in told[0]
    assert {name.split(".")[0] for name in idle_parameters(dict(module.model.named_parameters()))} == {"heads"}
    caplog.clear()
    fit(model=views.model(), optim={**LOWER, "groups": {"frozen": ["heads.*"]}}, **changes)
    assert not [record for record in caplog.records if "no gradient" in record.message]


def test_patterns_that_cover_names() -> None:
    known = ["a.b.c", "a.b.d", "a.e", "f"]
    assert covering(["a.b.c", "a.b.d"], known) == ["a.b.*"]
    assert covering(["a.b.c", "f"], known) == ["a.b.c", "f"]
    assert covering(["a.b.c", "a.b.d", "a.e"], known) == ["a.*"]


def test_buffers_of_each_rank(views, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = build(views.objective("+objective=declip"), path="objective")
    own = rank_buffers(objective)
    assert sorted(own) == [f"parts.nearest_neighbour.queue.{name}" for name in ("entries", "inverse_norms", "pointer")]
    state = RankState()
    module = SimpleNamespace(objective=objective)
    saved = {name: [torch.full_like(buffer, rank) for rank in (1, 2)] for name, buffer in own.items()}
    with pytest.raises(ValueError, match=r"of 2 processes and this run has 1; an exact .*trainer.devices"):
        state.on_load_checkpoint(None, module, {"rank_buffers": saved})
    monkeypatch.setattr("multimodal_zoo.training.rank_state.world_size", lambda: 2)
    monkeypatch.setattr("multimodal_zoo.training.rank_state.rank", lambda: 1)
    with pytest.raises(ValueError, match="of 1 process and this run has 2"):  # all would go on with one queue
        state.on_load_checkpoint(None, module, {})
    state.on_load_checkpoint(None, module, {"rank_buffers": saved})
    state.on_train_start(None, module)
    assert all(bool((buffer == 2).all()) for buffer in rank_buffers(objective).values())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_low_precision_stays_close(fit, views, tmp_path: Path, precision: str) -> None:
    node = views.objective("+objective=defilip")
    losses = {}
    for one in ("32-true", precision):
        trainer = {"precision": one, "max_steps": 2, "gradient_clip_val": None}
        optim = {**LOWER, "fused": False}
        module, _ = fit(
            one, model=views.model(), objective=node, batches=views.batches(8), optim=optim, trainer=trainer
        )
        losses[one] = [row["train/loss"] for row in read_metrics(tmp_path / one / "metrics.csv")]
        assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
    assert losses[precision] == pytest.approx(losses["32-true"], rel=0.05)
    assert losses[precision] != losses["32-true"]


def test_synchronised_batch_norm_keeps_names_and_values(views) -> None:
    """What trainer.sync_batchnorm=true makes of the heads; one process computes the same."""
    model, objective = views.model(), build(views.objective("+objective=slip"), path="objective")
    expected = objective(model, views.batches(8)[0])["loss"]
    other = torch.nn.SyncBatchNorm.convert_sync_batchnorm(views.model())
    assert isinstance(other.heads["simclr"].norm1, torch.nn.SyncBatchNorm)
    assert list(other.state_dict()) == list(views.model().state_dict())
    assert not other.heads["simclr"].idle_norm.weight.requires_grad
    torch.testing.assert_close(objective(other, views.batches(8)[0])["loss"], expected)
