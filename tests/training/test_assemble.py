"""Recipes that ask for what is not there get an error with the way out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from multimodal_zoo.commands.train import chosen_metric, settle_run_folder
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.training import assemble

TRAINER = {"accelerator": "cpu", "max_steps": 1}


def test_an_absent_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assemble, "find_spec", lambda name: None)
    node = compose(None, ["+logger=wandb", "+run={dir:x,name:y}"]).logger
    with pytest.raises(ImportError, match=r'needs the package wandb: pip install "multimodal_zoo\[wandb\]"'):
        assemble.loggers({"logger": node}, tmp_path)
    strategy = compose(None, ["+trainer=deepspeed"]).trainer.strategy
    with pytest.raises(ImportError, match="needs the package deepspeed"):
        assemble.trainer({"trainer": {**TRAINER, "strategy": dict(strategy)}}, tmp_path, [], [])


def test_a_misspelt_trainer_argument_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"trainer.max_stepz \(did you mean 'max_steps'\?\)"):
        assemble.trainer({"trainer": {**TRAINER, "max_stepz": 3}}, tmp_path, [], [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    node = {**compose(None, ["+trainer=gpu"]).trainer, "max_steps": 1}
    with pytest.raises(ValueError, match=r"trainer \(accelerator=gpu, .*trainer=cpu runs everywhere"):
        assemble.trainer({"trainer": node}, tmp_path, [], [])


def test_an_optimiser_without_a_learning_rate(tiny) -> None:
    with pytest.raises(ValueError, match=r"optim\.lr is missing"):
        assemble.objective_module({"optim": {"_target_": "torch.optim.SGD"}}, tiny())


def test_float16_does_not_clip_scaled_gradients(fit) -> None:
    module, _ = fit(trainer={"max_steps": 2, "max_epochs": -1})
    module._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=object()), world_size=1)
    parameter = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=r"optim\.fused=false"):
        module.configure_gradient_clipping(torch.optim.AdamW([parameter], fused=True), 1.0, "norm")


def test_the_figure_of_a_sweep() -> None:
    logged, results = {"validation/loss": torch.tensor(2.0)}, {"unseen": Result("unseen", {"R@1": 0.25})}
    assert chosen_metric(None, logged, results) is None
    assert chosen_metric("validation/loss", logged, results) == 2.0
    assert chosen_metric("unseen/R@1", logged, results) == 0.25
    with pytest.raises(KeyError, match=r"optimized_metric: no figure named 'unseen/R@2'; closest: unseen/R@1"):
        chosen_metric("unseen/R@2", logged, results)


def test_the_run_folder_is_fixed_once() -> None:
    config = compose(None, ["+run={dir:'runs/${now:%f}',name:x}"])
    place = settle_run_folder(config)
    assert place.is_absolute()
    assert config.run.dir == str(place) == str(settle_run_folder(config))


@pytest.mark.parametrize("name", ["cpu", "gpu", "ddp", "ddp_cpu", "fsdp", "fsdp_cpu"])
def test_every_trainer_file_names_arguments_of_the_trainer(name: str) -> None:
    import inspect

    import lightning

    from multimodal_zoo.registry import build

    node = compose(None, [f"+trainer={name}"]).trainer
    assert set(node) <= set(inspect.signature(lightning.Trainer).parameters)
    build(node.strategy, path="trainer.strategy")
