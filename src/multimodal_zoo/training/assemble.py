"""From a recipe's nodes to built objects: module, callbacks, loggers, trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from multimodal_zoo.kinds import fitted
from multimodal_zoo.messages import raised_in
from multimodal_zoo.registry import build, self_contained
from multimodal_zoo.training.adversarial_module import AdversarialModule
from multimodal_zoo.training.clamp import Clamp
from multimodal_zoo.training.ema import Ema
from multimodal_zoo.training.groups import read_rules
from multimodal_zoo.training.logs import MetricsCsv
from multimodal_zoo.training.objective_module import ObjectiveModule
from multimodal_zoo.training.progress import Throughput
from multimodal_zoo.training.rank_state import RankState
from multimodal_zoo.training.reference import reference_model
from multimodal_zoo.training.rng import RandomState
from multimodal_zoo.training.teacher import patch_teacher

#: (start of a configuration's `_target_`, module that it needs, what to install)
OPTIONAL = (
    ("lightning.pytorch.loggers.WandbLogger", "wandb", '"multimodal_zoo[wandb]"'),
    ("lightning.pytorch.strategies.DeepSpeedStrategy", "deepspeed", "deepspeed"),
)


def objective_module(
    config: Mapping[str, Any], model: nn.Module, start: Callable[[str], Tensor] | None = None
) -> ObjectiveModule:
    """The LightningModule of a recipe.

    Args:
        config: the resolved recipe; its nodes `objective`, `optim`, `schedule`, `teacher`, `reference` are built here.
        model: what trains.
        start: computes the start values of a model whose matrices are on `meta`.

    Raises:
        KeyError, TypeError, ValueError: a node that does not fit, with its path.
    """
    optim = {key: value for key, value in config["optim"].items() if key != "groups"}
    if "lr" not in optim:
        raise ValueError("optim.lr is missing: give the learning rate")
    common: dict[str, Any] = {
        "model": model,
        "objective": build(config["objective"], path="objective", **learnt_from(config)),
        "rules": read_rules(config["optim"].get("groups")),
        "optimizer": lambda groups: build(optim, path="optim", params=groups),
        "lr": float(fitted(optim["lr"], float, "optim.lr")),
        "weight_decay": float(fitted(optim.get("weight_decay", 0.0), float, "optim.weight_decay")),
        "schedule": build(config["schedule"], path="schedule"),
        "config": {**config, "model": self_contained(config.get("model"))},  # a checkpoint holds all weights
    }
    if has_discriminator(config):
        return AdversarialModule(**common, clip=config["trainer"].get("gradient_clip_val"))
    return ObjectiveModule(**common, start=start)


def has_discriminator(config: Mapping[str, Any]) -> bool:
    """Whether a recipe's objective has an adversarial part, which two optimisers train in turn."""
    return bool((config.get("objective") or {}).get("adversarial"))


def learnt_from(config: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The objective's frozen models, where the recipe has them: `teacher`, `reference`."""
    found: dict[str, nn.Module] = {}
    if node := config.get("teacher"):
        found["teacher"] = patch_teacher(node, config["model"])
    if node := config.get("reference"):
        found["reference"] = reference_model(node, config)
    return found


def callbacks(config: Mapping[str, Any]) -> list[Callback]:
    """The recipe's callbacks, and those that every run has: random state, what each rank has for itself, throughput.

    Bounds on parameters come first, then the moving average, so that the others see both up to date; Lightning puts
    checkpoints last.
    """
    nodes = {name: node for name, node in (config.get("callbacks") or {}).items() if node}
    built = [build(node, path=f"callbacks.{name}") for name, node in nodes.items()]
    built.sort(key=lambda callback: (not isinstance(callback, Clamp), not isinstance(callback, Ema)))
    elastic = bool(config.get("elastic"))
    return [Throughput(), RandomState(int(config["seed"]), elastic), RankState(elastic), *built]


def loggers(config: Mapping[str, Any], folder: Path) -> list[Logger]:
    """`metrics.csv` and the recipe's loggers.

    Raises:
        ImportError: a logger whose package is absent, with what to install.
    """
    nodes = {name: node for name, node in (config.get("logger") or {}).items() if node}
    for node in nodes.values():
        require_optional(node)
    return [MetricsCsv(folder / "metrics.csv"), *(build(node, path=f"logger.{key}") for key, node in nodes.items())]


def trainer(
    config: Mapping[str, Any], folder: Path, callbacks: Sequence[Callback], loggers: Sequence[Logger]
) -> lightning.Trainer:
    """The Lightning Trainer of a recipe's `trainer` node.

    Raises:
        TypeError: an argument that the Trainer does not take, with the nearest.
        ImportError: a strategy whose package is absent.
        ValueError: a device or a combination that this machine does not have.
    """
    node = dict(config["trainer"])
    if has_discriminator(config):
        node = _taking_turns(node)
    require_optional(node.get("strategy"))
    checkpoints = any(isinstance(callback, Checkpoint) for callback in callbacks)
    chosen = ", ".join(f"{key}={node.get(key)}" for key in ("accelerator", "devices", "strategy", "precision"))
    with fitting(f"trainer ({chosen})", "; trainer=cpu runs everywhere"):
        return build(
            {"_target_": "lightning.Trainer", **node},
            path="trainer",
            callbacks=list(callbacks),
            logger=list(loggers),
            default_root_dir=str(folder),
            enable_progress_bar=False,
            enable_checkpointing=checkpoints,
        )


@contextmanager
def fitting(what: str, way_out: str = "") -> Iterator[None]:
    """What Lightning refuses, an accelerator that is not there or too long an interval, becomes an error of ours.

    Args:
        what: was configured.
        way_out: stands behind Lightning's words.

    Raises:
        ValueError: instead of Lightning's own.
    """
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError) as error:
        if not raised_in(error).startswith("lightning."):
            raise
        raise ValueError(f"{what}: {str(error).strip()}{way_out}") from error


def _taking_turns(node: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's arguments where the module steps two optimisers and clips their gradients itself.

    Raises:
        ValueError: accumulated batches, which it does not know.
    """
    if (batches := node.get("accumulate_grad_batches", 1)) != 1:
        raise ValueError(
            f"trainer.accumulate_grad_batches is {batches}; with a discriminator both sides step at every batch: set 1 "
            "and a larger data.batch_size"
        )
    return {**node, "gradient_clip_val": None}


def require_optional(node: Any) -> None:
    """Refuse a node whose package is not installed.

    Raises:
        ImportError: with what to install.
    """
    target = node.get("_target_", "") if isinstance(node, Mapping) else ""
    for start, module, package in OPTIONAL:
        if target.startswith(start) and find_spec(module) is None:
            raise ImportError(f"{target} needs the package {module}: pip install {package}")
