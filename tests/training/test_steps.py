"""What happens once behind an optimiser step, where several batches make one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.ema import Ema
from multimodal_zoo.training.progress import ProgressBar
from multimodal_zoo.training.sheets import Sheet
from multimodal_zoo.training.steps import StepEnds

ACCUMULATED = {"max_steps": 3, "accumulate_grad_batches": 2, "log_every_n_steps": 1}


@pytest.fixture
def fit_with(fit, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`fit` with further callbacks."""
    from multimodal_zoo.training import assemble

    original = assemble.callbacks

    def run(*more: Callback, **changes: Any) -> Any:
        monkeypatch.setattr(assemble, "callbacks", lambda config: [*original(config), *more])
        return fit(**changes)

    return run


class Counting(Callback):
    """Notes the batches that end a step."""

    def __init__(self) -> None:
        self.ends, self.batch, self.over = StepEnds(), 0, []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.ends.begin(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batch += 1
        if self.ends.over(trainer):
            self.over.append(self.batch)


def test_every_second_batch_ends_a_step(fit_with, batches) -> None:
    counting = Counting()
    fit_with(counting, batches=batches(4), trainer=ACCUMULATED)
    assert counting.over == [2, 4, 6]


def test_a_sheet_is_drawn_behind_steps_alone(fit_with, tmp_path: Path) -> None:
    sheet = Sheet(1, lambda logger, png, step: None)
    sheet.prepare = lambda trainer, pl_module: lambda: b""  # type: ignore[method-assign]
    fit_with(sheet, trainer=ACCUMULATED)
    drawn = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert drawn == [f"step_{step:08d}.png" for step in (1, 2, 3)]


def test_the_bar_shows_the_loss_of_a_batch_and_not_its_part(fit_with, batches, tmp_path: Path, capsys) -> None:
    fit_with(ProgressBar(line_seconds=0), batches=batches(4), trainer=ACCUMULATED)
    shown = [line.split()[3] for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    logged = [f"{row['train/loss']:.4f}" for row in read_metrics(tmp_path / "run" / "metrics.csv")]
    assert shown[1::2] == logged  # of every second batch, and at the end


def test_a_rate_of_nothing_trains_nothing(fit, tmp_path: Path) -> None:
    fit(optim={"lr": 0.0})
    assert {row["train/learning_rate"] for row in read_metrics(tmp_path / "run" / "metrics.csv")} == {0.0}


def test_watchers_of_an_earlier_training_are_forgotten(fit, tiny) -> None:
    module, _ = fit()
    module.gradient_watchers.append(lambda norm: pytest.fail("asked again"))
    module.setup("fit")
    assert module.gradient_watchers == []


def test_a_tied_weight_comes_back_from_validation() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.output = nn.Embedding(3, 2), nn.Linear(2, 3, bias=False)
            self.output.weight = self.embedding.weight

    module: Any = nn.Module()
    module.model = Tied()
    weights = module.model.embedding.weight.detach().clone()
    ema = Ema()
    ema.average = {name: tensor + 1 for name, tensor in module.model.state_dict().items()}
    with ema.applied(module):
        torch.testing.assert_close(module.model.output.weight.detach(), weights + 1)
    torch.testing.assert_close(module.model.output.weight.detach(), weights)
    for tensor in ema.average.values():
        torch.testing.assert_close(tensor, weights + 1)
