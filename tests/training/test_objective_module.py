"""A training run on the tiny model: what is learnt, logged, clipped, frozen and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from multimodal_zoo.evaluation.history import read_metrics

EMA = {"_target_": "multimodal_zoo.training.ema.Ema", "decay": 0.9}
CHECKPOINTS = {"_target_": "multimodal_zoo.training.checkpointing.Checkpoints", "every_n_steps": 2, "keep": 2}


def test_the_loss_goes_down_and_the_csv_tells(fit, tmp_path: Path, batches) -> None:
    fit(trainer={"max_steps": 60, "max_epochs": -1, "gradient_clip_val": 0.5}, validation=batches(8, seed=1))
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.csv") if "train/loss" in row]
    assert [row["step"] for row in rows] == list(range(60))
    first, last = (sum(row["train/loss"] for row in part) / 6 for part in (rows[:6], rows[-6:]))
    assert last < 0.5 * first
    assert {"train/gradient_norm", "train/learning_rate", "train/logit_scale", "samples_per_second"} <= set(rows[0])
    assert rows[0]["train/learning_rate"] == pytest.approx(0.025)
    assert rows[1]["train/learning_rate"] == pytest.approx(0.05)
    validated = [r for r in read_metrics(tmp_path / "run" / "metrics.csv") if "validation/loss" in r]
    assert len(validated) == 20


def test_clipping_bounds_the_step_and_logs_the_norm_before(fit, tmp_path: Path) -> None:
    sgd = {"_target_": "torch.optim.SGD", "lr": 1.0, "fused": False, "weight_decay": 0.0}
    changes = {"optim": sgd, "schedule": {"_target_": "multimodal_zoo.training.schedule.Constant", "warmup": 0}}
    module, _ = fit(trainer={"max_steps": 1, "gradient_clip_val": 1e-3}, **changes)
    free, _ = fit("free", trainer={"max_steps": 1, "gradient_clip_val": None}, **changes)
    start, _ = fit("start", trainer={"max_steps": 0}, **changes)

    def moved(trained: torch.nn.Module) -> float:
        old, new = start.state_dict(), trained.state_dict()
        return float(torch.stack([(new[k] - old[k]).norm() for k in old]).norm())

    norm = read_metrics(tmp_path / "run" / "metrics.csv")[0]["train/gradient_norm"]
    assert moved(free) == pytest.approx(norm, rel=1e-4)
    assert moved(module) == pytest.approx(1e-3, rel=1e-3)


def test_frozen_parts_keep_their_weights_and_their_dropout_off(fit, tiny) -> None:
    rules = {"frozen": ["image.*"], "no_decay_rank": 1}
    optim = {"_target_": "torch.optim.AdamW", "lr": 0.05, "weight_decay": 0.1, "groups": rules}
    module, _ = fit(trainer={"max_steps": 3}, optim=optim)
    before = tiny().state_dict()
    after = module.model.state_dict()
    assert all(torch.equal(before[k], after[k]) == k.startswith("image.") for k in before)
    assert not module.model.image[1].training
    assert module.model.text.training


@pytest.mark.parametrize("stop", [4, 3], ids=["inside an epoch", "at its end"])
def test_resuming_is_exact(fit, tmp_path: Path, batches, stop: int) -> None:
    """Losses, weights and average are bit-equal; dropout draws from the random state. An epoch is three batches."""
    callbacks = {"checkpoint": {**CHECKPOINTS, "every_n_steps": stop, "keep": 9}, "ema": EMA}
    changes = {"callbacks": callbacks, "trainer": {"max_steps": 8, "val_check_interval": 2}}
    whole, trainer = fit("whole", validation=batches(8, seed=1), **changes)
    checkpoint = tmp_path / "whole" / "checkpoints" / f"step_{stop:08d}.ckpt"
    torch.rand(7)  # whatever happened in between
    resumed, again = fit("resumed", checkpoint=checkpoint, validation=batches(8, seed=1), **changes)
    assert again.global_step == trainer.global_step == 8

    def losses(folder: str) -> dict[float, float]:
        rows = read_metrics(tmp_path / folder / "metrics.csv")
        return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}

    expected = {step: loss for step, loss in losses("whole").items() if step >= stop}
    assert losses("resumed") == expected
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    averages = [next(c for c in t.callbacks if type(c).__name__ == "Ema").average for t in (trainer, again)]
    assert all(torch.equal(averages[0][k], averages[1][k]) for k in averages[0])


def test_only_the_newest_checkpoints_are_kept(fit, tmp_path: Path) -> None:
    fit(callbacks={"checkpoint": CHECKPOINTS}, trainer={"max_steps": 7})
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["last.ckpt", "step_00000006.ckpt", "step_00000007.ckpt"]
    assert (folder / "last.ckpt").resolve().name == "step_00000007.ckpt"
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["config"]["optim"]["lr"] == 0.05
    assert type(saved["hyper_parameters"]["config"]) is dict


def test_a_failure_says_how_to_go_on(fit, batches, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class Stops:
        def __len__(self) -> int:
            return 8

        def to(self, *args: object, **kwargs: object) -> None:
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        fit(callbacks={"checkpoint": CHECKPOINTS}, batches=[*batches(8), Stops()])
    told = capsys.readouterr().err
    assert f"step_00000002.ckpt. Continue with the same command and run.dir={tmp_path / 'run'} resume=auto" in told


def test_accumulation_averages_gradients_of_separate_batches(fit, tiny, batches) -> None:
    """Two batches of 8 accumulate to the mean of their gradients: their pairs are not each other's negatives."""
    sgd = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.0, "fused": False}
    flat = {"_target_": "multimodal_zoo.training.schedule.Constant", "warmup": 0}
    trainer = {"max_steps": 1, "accumulate_grad_batches": 2, "gradient_clip_val": None}
    module, _ = fit(trainer=trainer, optim=sgd, schedule=flat)
    model = tiny()
    torch.manual_seed(0)  # what the run seeds its dropout with
    objective = module.objective
    loss = sum(objective(model, batch)["loss"] for batch in batches(8)[:2]) / 2
    loss.backward()
    for name, parameter in model.named_parameters():
        expected = parameter.detach() - 0.1 * parameter.grad
        torch.testing.assert_close(module.model.state_dict()[name], expected, atol=1e-6, rtol=1e-5)


def test_fewer_batches_at_the_end_of_an_epoch_count_in_full(fit, tmp_path: Path) -> None:
    still = {"_target_": "torch.optim.SGD", "lr": 0.0, "weight_decay": 0.0, "fused": False}
    fit(folder="plain", optim=still, trainer={"max_steps": 3})
    fit(folder="accumulated", optim=still, trainer={"max_steps": 2, "accumulate_grad_batches": 2})
    plain, accumulated = (read_metrics(tmp_path / name / "metrics.csv") for name in ("plain", "accumulated"))
    assert len(accumulated) == 2  # of two batches, and of the third alone
    assert accumulated[1]["train/gradient_norm"] == pytest.approx(plain[2]["train/gradient_norm"], rel=1e-5)


@pytest.mark.parametrize(("ranks", "expected"), [(1, 0), (2, 1)])
def test_batch_norm_on_several_ranks_is_said(tiny, caplog, monkeypatch, ranks: int, expected: int) -> None:
    from types import SimpleNamespace

    from multimodal_zoo.training.objective_module import ObjectiveModule

    model = tiny()
    model.image.append(torch.nn.BatchNorm1d(8))
    trainer = SimpleNamespace(world_size=ranks, is_global_zero=True)
    monkeypatch.setattr(ObjectiveModule, "trainer", trainer)
    module = ObjectiveModule.__new__(ObjectiveModule)
    torch.nn.Module.__init__(module)
    module.model = model
    ObjectiveModule.on_train_start(module)
    assert [record.message.startswith("batch norm in model.image.4") for record in caplog.records] == [True] * expected
    model.image[4] = torch.nn.SyncBatchNorm.convert_sync_batchnorm(model.image[4])
    caplog.clear()
    ObjectiveModule.on_train_start(module)
    assert not caplog.records
    model.image[4] = torch.nn.BatchNorm1d(8).eval()
    ObjectiveModule.on_train_start(module)
    assert not caplog.records
