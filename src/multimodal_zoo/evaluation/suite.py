"""Running several evaluations on one model, each saved as soon as it is ready."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

import multimodal_zoo
from multimodal_zoo.evaluation.environment import config_hash, fingerprint
from multimodal_zoo.evaluation.result import Result, Table
from multimodal_zoo.registry import build

logger = logging.getLogger(__name__)


def run_suite(
    model: nn.Module,
    processor: Any,
    evaluators: Mapping[str, Any],
    folder: Path,
    device: torch.device,
) -> dict[str, Result]:
    """Run evaluations one by one; each result lies in `folder/evaluation` before the next one starts.

    An evaluator given as a configuration is built when its turn comes, and skipped when the folder already holds its
    result for the same configuration, weights and library version: an interrupted suite goes on where it stopped.

    Args:
        model: on `device`.
        processor: its processor.
        evaluators: name -> configuration with `type`, or an evaluator already built (which always runs); None leaves
            one out.
        folder: the run folder.
        device: where the model lies.

    Returns:
        name -> result, in the order of `evaluators`.

    Raises:
        ValueError: no evaluator, or a name that cannot be a file name; or what an evaluator raises, noting which.
    """
    if type(evaluators).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        evaluators = cast("dict[str, Any]", OmegaConf.to_container(evaluators, resolve=True, throw_on_missing=True))
    evaluators = {name: evaluator for name, evaluator in evaluators.items() if evaluator is not None}
    if not evaluators:
        raise ValueError("evaluation: there is nothing to evaluate; choose benchmark=NAME")
    unfit = [name for name in evaluators if not re.fullmatch(r"[\w.+-]+", name)]
    if unfit:
        raise ValueError(f"evaluation: {unfit[0]!r} names files, so it may hold letters, digits and _ . + - only")
    weights = fingerprint(model)
    results: dict[str, Result] = {}
    for name, evaluator in evaluators.items():
        configured = isinstance(evaluator, Mapping)
        mark = config_hash(evaluator, weights, multimodal_zoo.__version__) if configured else ""
        found = finished(folder, name, mark) if configured else None
        if found is not None:
            logger.info("%s: taken from %s", name, folder)
            results[name] = found
            continue
        start = time.perf_counter()
        try:
            part = build(evaluator, path=f"evaluation.{name}") if configured else evaluator
            result: Result = part(model, processor, device)
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"in evaluation {name!r}; the finished ones are kept in {folder / 'evaluation'}")
            raise
        seconds = round(time.perf_counter() - start, 2)
        details = {**result.details, "seconds": seconds, "hash": mark, "weights": weights}
        results[name] = replace(result, name=name, details=details)
        results[name].save(folder / "evaluation")
    return results


def finished(folder: Path, name: str, mark: str) -> Result | None:
    """The saved result of an evaluation, None if there is none or it belongs to something else."""
    path = folder / "evaluation" / f"{name}.json"
    if not path.is_file():
        return None
    try:
        result = Result.load(path)
    except (OSError, ValueError) as error:
        logger.warning("%s cannot be used again: %s", path, error)
        return None
    return result if mark and result.details.get("hash") == mark else None


def load_results(folder: Path) -> dict[str, Result]:
    """All results saved in a run folder, by name."""
    return {path.stem: Result.load(path) for path in sorted((folder / "evaluation").glob("*.json"))}


def headlines(results: Mapping[str, Result]) -> list[Table]:
    """Overview tables: evaluations with the same headline figures stand in one table."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results.values():
        groups.setdefault(result.headline or tuple(list(result.metrics)[:4]), []).append(result)
    return [
        Table(
            "overview",
            ("evaluation", *(metric.replace("_", " ") for metric in metrics)),
            [(result.name.replace("_", " "), *(result.metrics[m] for m in metrics)) for result in members],
        )
        for metrics, members in groups.items()
    ]
