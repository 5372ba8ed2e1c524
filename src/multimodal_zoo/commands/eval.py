"""`mmzoo eval VARIANT_OR_PATH benchmark=NAME [weights=PATH] [overrides]`: evaluate a model and write a report."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from multimodal_zoo.addresses import is_address
from multimodal_zoo.catalogue import list_group, require
from multimodal_zoo.files import write_text

logger = logging.getLogger(__name__)


class UnfinishedError(RuntimeError):
    """Some evaluations of a suite failed; the results of the others are kept and used again.

    Args:
        failed: name -> message.
    """

    def __init__(self, failed: Mapping[str, str]) -> None:
        listed = "".join(f"\n  {name}: {message}" for name, message in failed.items())
        what = "1 evaluation" if len(failed) == 1 else f"{len(failed)} evaluations"
        super().__init__(f"{what} failed; run again to repeat what failed, the others are kept{listed}")
        self.failed = dict(failed)


def run(config: DictConfig) -> float | None:
    """Evaluate what the configuration names.

    Args:
        config: see `conf/base/eval.yaml`.

    Returns:
        the value of `config.optimized_metric`, for sweeps; None without one.

    Raises:
        KeyError: an unknown `optimized_metric`, with those that there are.
        ValueError: no model, random weights that were not asked for, nothing to evaluate.
        UnfinishedError: evaluations that failed; the report and the tables of the others come first.
    """
    from multimodal_zoo.commands.machine import device_of, use_threads
    from multimodal_zoo.evaluation.environment import record_run
    from multimodal_zoo.evaluation.report import print_overview, write_report
    from multimodal_zoo.evaluation.suite import run_suite

    if not config.get("benchmark"):
        raise ValueError(f"benchmark: nothing to evaluate; choose one of {', '.join(list_group('benchmark'))}")
    device = device_of(config.device)
    use_threads(config.threads)
    model = load_model(config, "eval").to(device)
    folder = Path(config.run.dir) / slug(config)
    record_run(folder, model, choices=chosen_groups())
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True))
    only = None if config.get("only") is None else list(config.only)
    failed: dict[str, str] = {}
    results = run_suite(model, model.processor, config.benchmark, folder, device, only, failed)
    report = write_report(folder, title=None if config.get("source") is None else Path(config.source).name)
    print_overview(results)
    print(f"report: {report}", flush=True)
    if failed:
        raise UnfinishedError(failed)
    if config.optimized_metric is None:
        return None
    values = {f"{key}/{metric}": value for key, found in results.items() for metric, value in found.metrics.items()}
    return values[require(config.optimized_metric, sorted(values), "figure", "optimized_metric")]


def load_model(config: DictConfig, command: str) -> Any:
    """The model that `source`, or `model` and `weights`, name; random weights only when asked for.

    Args:
        config: has `source`, `model`, `weights` (a place, a place for each part of the model, or `published`),
            `allow_random`, `resize`; perhaps `vision_tokenizer`, for a `source` without one.
        command: for the error's example.

    Raises:
        ValueError: no model named, or its weights are random.
    """
    from multimodal_zoo.zoo import attach, build_model, filled, from_pretrained

    node: Any = OmegaConf.to_container(config.model, resolve=True) if config.get("model") is not None else None
    resize = bool(config.get("resize", False))
    if config.get("source") is not None:
        if config.weights is not None:
            raise ValueError(f"weights: {config.weights} is one model too many beside source {config.source}; drop one")
        beside = config.get("vision_tokenizer")
        return from_pretrained(config.source, config=node, vision_tokenizer=beside, resize=resize)
    if node is None:
        raise ValueError(f"source: mmzoo {command} needs a run folder, a checkpoint or a variant")
    if config.weights is None:
        if not config.allow_random:
            raise ValueError(
                "weights: the model's weights are random, and so would be its figures; give weights=PATH (or "
                "weights=hf://organisation/repository/file), or ask for random ones with allow_random=true"
            )
        return build_model(node)
    if config.weights == "published" or OmegaConf.is_dict(config.weights):
        places: Any = config.weights
        places = places if isinstance(places, str) else OmegaConf.to_container(places)
        return filled(node, places, resize=resize)
    return attach(from_pretrained(config.weights, config=node, resize=resize), node, weights=str(config.weights))


def variant_name() -> str:
    """The variant that the command line chose; `model` where no Hydra application runs."""
    from hydra.core.hydra_config import HydraConfig

    return str(HydraConfig.get().runtime.choices.get("model")) if HydraConfig.initialized() else "model"


def chosen_groups() -> dict[str, str]:
    """Group -> the file that the command line chose for it; empty where no Hydra application runs."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {key: str(value) for key, value in choices.items() if not key.startswith("hydra/") and value is not None}


def slug(config: DictConfig) -> str:
    """The folder of one evaluated model: readable, and different for paths that only end alike."""
    named = config.source if config.get("source") is not None else config.weights
    if named is None or named == "published":
        return f"{variant_name()}-{named or 'random'}"
    if OmegaConf.is_dict(named):
        places = " ".join(str(Path(place).resolve()) for place in named.values())
        return f"{variant_name()}-{hashlib.sha256(places.encode()).hexdigest()[:6]}"
    path = str(named) if is_address(str(named)) else str(Path(named).resolve())
    words = re.sub(r"[^\w.]+", "-", "-".join(Path(path).parts[-2:])).strip("-.")
    return f"{words}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"
