"""`mmzoo train [recipe] [overrides]`: train a recipe, evaluate the result, write a report."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from multimodal_zoo.config import quoted
from multimodal_zoo.files import write_text

if TYPE_CHECKING:
    import lightning
    from torch import nn

    from multimodal_zoo.data.skips import Skips
    from multimodal_zoo.evaluation.result import Result
    from multimodal_zoo.training.objective_module import ObjectiveModule

log = logging.getLogger(__name__)


def run(config: DictConfig) -> float | None:
    """Train what a recipe describes, in one stage or in several (`commands/stages.py`).

    Args:
        config: a composed recipe, see `conf/base/train.yaml` and `conf/base/stages.yaml`.

    Returns:
        the figure that a sweep is judged by; None without one.
    """
    if "stages" in config:
        from multimodal_zoo.commands.stages import run_stages

        return run_stages(config)
    return train_recipe(config)


def train_recipe(config: DictConfig) -> float | None:
    """Train one recipe.

    The run folder ends up with `config.yaml`, `metrics.csv`, `checkpoints/`, `samples/`, `model/` (the final weights,
    averaged if there is an average), `evaluation/` and `report.html`.

    Args:
        config: a composed recipe, see `conf/base/train.yaml`.

    Returns:
        the value of `config.optimized_metric`, for sweeps; None without one, and on every rank but the first.

    Raises:
        OSError: the run folder cannot be written or the disk is too full, before training starts.
        NonFiniteLoss: the loss became NaN or infinite.
        SystemExit: SIGTERM ended the run; its last step is saved.
        KeyError, TypeError, ValueError: a configuration that does not fit, with its path.
    """
    from multimodal_zoo.training import assemble, folder
    from multimodal_zoo.training.agreement import check_agreement
    from multimodal_zoo.training.allocator import keep_freed_memory
    from multimodal_zoo.training.initial import initial_model
    from multimodal_zoo.training.logs import quieten
    from multimodal_zoo.training.preemption import exit_status
    from multimodal_zoo.training.values import check_values

    quieten()
    place = settle_run_folder(config)
    primary = rank() == 0
    if primary:
        folder.check_run_folder(place, needed=0)
        keep_log(place)
    recipe: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore
    check_values(recipe)
    checkpoint = folder.find_checkpoint(recipe["resume"], place)
    set_threads(recipe["threads"])
    if recipe["keep_memory"] and recipe["trainer"].get("accelerator") == "cpu":
        keep_freed_memory()
    _seed(recipe["seed"])
    model, start = initial_model(recipe, resumed=checkpoint is not None, say=print if primary else _unsaid)
    module = assemble.objective_module(recipe, model, start)
    callbacks = assemble.callbacks(recipe)
    data = _data(recipe, model)
    check_agreement(module.objective, model, data)
    trainer = assemble.trainer(recipe, place, callbacks, assemble.loggers(recipe, place))
    if primary:
        averaged = any(type(callback).__name__ == "Ema" for callback in callbacks)
        keep = max((getattr(callback, "keep", 0) for callback in callbacks), default=0)
        folder.check_run_folder(place, needed=folder.run_bytes(module, averaged, keep, place, trainer.world_size))
        if checkpoint is None:
            write_text(place / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(recipe)))
        announce(module, place, checkpoint)
    began = time.monotonic()
    with exit_status(primary), assemble.fitting("trainer"):
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return finish(recipe, module, trainer, place, time.monotonic() - began)


def settle_run_folder(config: DictConfig) -> Path:
    """Fix `run.dir` for the whole run, also for the ranks that Lightning starts by running the command again.

    `${now:...}` resolves anew in each process; a job of a sweep has the folder that Hydra gave it.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    place = Path(config.run.dir)
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        place = Path(HydraConfig.get().runtime.output_dir)
    place = place.resolve()
    OmegaConf.update(config, "run.dir", str(place))
    if HydraConfig.initialized():
        sys.argv.append(f"run.dir={quoted(str(place))}")
    return place


def keep_log(place: Path) -> None:
    """Write log messages to `train.log` in the run folder too."""
    path = place / "train.log"
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).name == path.name:
            root.removeHandler(handler)  # of the sweep's last job
            handler.close()
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)


def set_threads(threads: int | None) -> None:
    """Limit the CPU threads of torch, here and in the processes that the trainer starts."""
    from multimodal_zoo.commands.machine import use_threads

    use_threads(threads)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def announce(module: ObjectiveModule, place: Path, checkpoint: Path | None) -> None:
    """Print what trains and where the run lies."""
    from rich.console import Console

    from multimodal_zoo.training.groups import table

    parameters = module.trainable_names()
    groups = module.rules.groups(parameters, module.lr, module.weight_decay)
    console = Console()
    console.print(table(groups, {name: parameters[name].numel() for name in module.frozen}))
    if checkpoint is not None:
        console.print(f"continuing from {checkpoint}", soft_wrap=True)
    console.print(f"run folder: {place}", soft_wrap=True)


def finish(
    recipe: Mapping[str, Any], module: ObjectiveModule, trainer: lightning.Trainer, place: Path, seconds: float
) -> float | None:
    """Export the final weights, evaluate them and write the report, on the first rank."""
    from multimodal_zoo.training.ema import find_ema
    from multimodal_zoo.training.export import whole_model
    from multimodal_zoo.training.left_out import left_out

    unused = left_out(trainer.datamodule)  # type: ignore[attr-defined]
    average = find_ema(trainer)
    with average.applied(module) if average is not None else nullcontext():
        model = whole_model(module.model, primary=trainer.is_global_zero)  # every rank takes part in the gathering
        if model is None:
            return None
        model.to(trainer.strategy.root_device)  # Lightning moved it to the CPU when training ended
        model.weights = f"trained: {place}, step {trainer.global_step}"  # type: ignore[assignment]
        results = _evaluate(recipe, model, place, unused, seconds)
    return chosen_metric(recipe["optimized_metric"], trainer.callback_metrics, results)


def _evaluate(
    recipe: Mapping[str, Any], model: nn.Module, place: Path, unused: Mapping[str, Skips], seconds: float
) -> dict[str, Result]:
    from multimodal_zoo.checkpoints.store import save_model
    from multimodal_zoo.commands.eval import chosen_groups
    from multimodal_zoo.evaluation.environment import record_run
    from multimodal_zoo.evaluation.report import print_overview, write_report
    from multimodal_zoo.evaluation.suite import run_suite

    save_model(model, place / "model")
    record_run(place, model, choices=chosen_groups(), left_out=unused, seconds=seconds)
    evaluators = {name: node for name, node in (recipe.get("evaluation") or {}).items() if node}
    device = next(model.parameters()).device
    results = run_suite(model, model.processor, evaluators, place, device) if evaluators else {}
    report = write_report(place, title=str(recipe["run"]["name"]))
    if results:
        print_overview(results)
    print(f"model:  {place / 'model'}\nreport: {report}")
    return results


def chosen_metric(name: str | None, logged: Mapping[str, Any], results: Mapping[str, Result]) -> float | None:
    """The figure that a sweep is judged by.

    Raises:
        KeyError: no such figure, with those that there are.
    """
    if name is None:
        return None
    values = {key: float(value) for key, value in logged.items()}
    values |= {f"{key}/{metric}": value for key, result in results.items() for metric, value in result.metrics.items()}
    from multimodal_zoo.catalogue import require

    return values[require(name, sorted(values), "figure", "optimized_metric")]


def _data(recipe: Mapping[str, Any], model: nn.Module) -> lightning.LightningDataModule:
    from multimodal_zoo.registry import build

    return build(recipe["data"], path="data", processor=model.processor)


def _unsaid(message: str) -> None:
    """What the first rank prints, on the others."""


def _seed(seed: int) -> None:
    from lightning import seed_everything

    seed_everything(seed, workers=True, verbose=False)


def rank() -> int:
    """Number of this process among those that train together."""
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    return int(rank_zero_only.rank or 0)  # type: ignore[attr-defined]
