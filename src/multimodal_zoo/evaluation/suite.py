"""Running several evaluations on one model, each saved as soon as it is ready."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

import multimodal_zoo
from multimodal_zoo.catalogue import chosen
from multimodal_zoo.data.benchmark_set import AbsentDataError, MissingRootError, NoRootError
from multimodal_zoo.evaluation.environment import config_hash, fingerprint, ways_of
from multimodal_zoo.evaluation.outcome import Outcome
from multimodal_zoo.evaluation.result import Result
from multimodal_zoo.evaluation.workspace import Workspace, share
from multimodal_zoo.registry import build, find, require_part

logger = logging.getLogger(__name__)


def run_suite(
    model: nn.Module,
    processor: Any,
    evaluators: Mapping[str, Any],
    folder: Path,
    device: torch.device,
    only: Sequence[str] | None = None,
    failed: dict[str, str] | None = None,
) -> dict[str, Result]:
    """Run evaluations one by one; each result lies in `folder/evaluation` before the next one starts.

    An evaluator given as a configuration is built when its turn comes, and skipped when the folder already holds its
    result for the same configuration, weights and library version: an interrupted suite goes on where it stopped.
    Evaluators that take a workspace share class vectors, kept in `folder/class_vectors`. One whose data is absent
    (`AbsentDataError`) is left out and named in a warning and in the report. Parts with a method `summarise` come last
    and make their tables from the results, those of earlier runs among them.

    Args:
        model: on `device`.
        processor: its processor.
        evaluators: name -> configuration with `type`, or an evaluator already built (which always runs); None leaves
            one out.
        folder: the run folder.
        device: where the model lies.
        only: names, or shell patterns of names, of the evaluations to run; None runs all.
        failed: filled with name -> message of evaluations that raised, while the others go on; None raises at once, and
            so does a suite of which nothing could be measured.

    Returns:
        name -> result, in the order of `evaluators`; those of `only`, and the summaries.

    Raises:
        ValueError: no evaluator, or a name that cannot be a file name; or what an evaluator raises, noting which.
        KeyError: a name in `only` that fits no evaluation.
        FileNotFoundError: the data of every evaluation is absent.
    """
    evaluators = _plain(evaluators)
    parts = {name: part for name, part in evaluators.items() if not _summarises(name, part)}
    wanted = chosen(list(parts), only, "evaluation", "only")
    setting = _Setting.of(model, processor, device, folder)
    known, absent, errors = _measured(setting, parts, wanted, carry_on=failed is not None)
    if not known and errors:
        raise next(iter(errors.values()))
    if absent:
        if not known:
            names, first = ", ".join(absent), next(iter(absent.values()))
            raise FileNotFoundError(f"the data of no evaluation is there ({names}); {first}")
        logger.warning("left out, for their data is not there: %s", ", ".join(absent))
    messages = {name: _message(error) for name, error in errors.items()}
    if failed is not None:
        failed.update(messages)
    results = {name: result for name, result in known.items() if name in wanted}
    missing = {**absent, **messages}
    results.update(_summaries({n: e for n, e in evaluators.items() if n not in parts}, known, missing, setting))
    Outcome(tuple(evaluators), absent, messages).save(folder)
    return {name: results[name] for name in evaluators if name in results}


def _measured(
    setting: _Setting, parts: Mapping[str, Any], wanted: Sequence[str], carry_on: bool
) -> tuple[dict[str, Result], dict[str, str], dict[str, Exception]]:
    """The results, old and new, by name; why data is absent; what was raised, if the suite is to carry on."""
    known: dict[str, Result] = {}
    absent: dict[str, str] = {}
    errors: dict[str, Exception] = {}
    for name, evaluator in parts.items():
        found = setting.kept(name, evaluator)
        if found is not None and name in wanted:
            logger.info("%s: taken from %s", name, setting.folder)
        elif found is None and name in wanted:
            try:
                found = setting.measure(name, evaluator, f"{wanted.index(name) + 1} of {len(wanted)}")
            except AbsentDataError as error:
                logger.info("%s: absent", name)
                absent[name] = str(error)
            except Exception as error:
                if not carry_on or isinstance(error, (NoRootError, MissingRootError)):  # no set would be found
                    raise
                logger.error("%s failed: %s", name, _message(error))
                errors[name] = error
        if found is not None:
            known[name] = found
    return known, absent, errors


def _message(error: Exception) -> str:
    """What an error says; one that is not ours may need its type to be understood."""
    said = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return said if isinstance(error, (ValueError, KeyError, OSError)) and said else f"{type(error).__name__}: {said}"


def _summaries(
    parts: Mapping[str, Any], known: Mapping[str, Result], missing: Mapping[str, str], setting: _Setting
) -> dict[str, Result]:
    results = {}
    for name, part in parts.items():
        built = _built(name, part)
        results[name] = replace(built.summarise(known, missing, setting.model), name=name)
        results[name].save(setting.folder / "evaluation")
    return results


@dataclass(frozen=True)
class _Setting:
    """What all evaluations of one call have in common."""

    model: nn.Module
    processor: Any
    device: torch.device
    folder: Path
    weights: str
    workspace: Workspace

    @classmethod
    def of(cls, model: nn.Module, processor: Any, device: torch.device, folder: Path) -> _Setting:
        """Everything that follows from model and folder."""
        weights = fingerprint(model) + ways_of(model)
        tokenizer = type(getattr(processor, "tokenizer", None)).__name__
        mark = f"{weights} {tokenizer} {multimodal_zoo.__version__}"
        return cls(model, processor, device, folder, weights, Workspace(folder / "class_vectors", mark))

    def mark(self, evaluator: Any) -> str:
        """By what a saved result is known again; empty for an evaluator that was handed over built."""
        configured = isinstance(evaluator, Mapping)
        return config_hash(evaluator, self.weights, multimodal_zoo.__version__) if configured else ""

    def kept(self, name: str, evaluator: Any) -> Result | None:
        """The result of an earlier run."""
        mark = self.mark(evaluator)
        return finished(self.folder, name, mark) if mark else None

    def measure(self, name: str, evaluator: Any, place: str) -> Result:
        """Run one evaluation and save its result; an error notes which one it was."""
        start = time.perf_counter()
        try:
            part = _built(name, evaluator)
            logger.info("%s (%s)", name, place)
            share(part, self.workspace)
            result: Result = part(self.model, self.processor, self.device)
        except Exception as error:
            if hasattr(error, "add_note"):
                error.add_note(f"in evaluation {name!r}; the finished ones are kept in {self.folder / 'evaluation'}")
            raise
        seconds = round(time.perf_counter() - start, 2)
        details = {**result.details, "seconds": seconds, "hash": self.mark(evaluator), "weights": self.weights}
        result = replace(result, name=name, details=details)
        result.save(self.folder / "evaluation")
        return result


def _plain(evaluators: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluators as a dict, those left out left out; raises ValueError for none and for unfit names."""
    if type(evaluators).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        evaluators = cast("dict[str, Any]", OmegaConf.to_container(evaluators, resolve=True, throw_on_missing=True))
    evaluators = {name: evaluator for name, evaluator in evaluators.items() if evaluator is not None}
    if not evaluators:
        raise ValueError("evaluation: there is nothing to evaluate; choose benchmark=NAME")
    unfit = [name for name in evaluators if not re.fullmatch(r"[\w.+-]+", name)]
    if unfit:
        raise ValueError(f"evaluation: {unfit[0]!r} names files, so it may hold letters, digits and _ . + - only")
    return evaluators


def _built(name: str, part: Any) -> Any:
    """A part of a configuration, or one that is built already as it is."""
    if not isinstance(part, Mapping):
        return part
    require_part(part, path=f"evaluation.{name}")
    return build(part, path=f"evaluation.{name}")


def _summarises(name: str, part: Any) -> bool:
    """Whether a part works on results instead of a model."""
    if isinstance(part, Mapping) and "type" in part:
        part = find(part["type"], f"evaluation.{name}")
    return hasattr(part, "summarise")


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
