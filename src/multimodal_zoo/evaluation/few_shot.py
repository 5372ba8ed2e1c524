"""One evaluation at several numbers of examples in front of each question: does reading examples help?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from multimodal_zoo.evaluation.result import Cell, Result, Table
from multimodal_zoo.evaluation.workspace import Workspace, share
from multimodal_zoo.registry import EVALUATORS


class Evaluation(Protocol):
    """An evaluation that can put examples in front of its questions: `captioning`, `vqa`."""

    def with_shots(self, count: int) -> Any:
        """The same evaluation with another number of examples."""
        ...


@EVALUATORS.register_module(name="few_shot")
class FewShot:
    """Run an evaluation once for each number of examples; figures are named `FIGURE_N_shots`.

    Args:
        evaluation: with `shots`; those of fewer examples are the first of those of more.
        counts: numbers of examples.

    Raises:
        ValueError: no number, or one twice.
    """

    def __init__(self, evaluation: Evaluation, counts: Sequence[int] = (0, 4, 8, 16)) -> None:
        if not counts or len(set(counts)) != len(counts):
            raise ValueError(f"few_shot.counts is {list(counts)}; expected different numbers of examples")
        self.counts = tuple(int(count) for count in counts)
        self.evaluations = {count: evaluation.with_shots(count) for count in self.counts}

    def share(self, workspace: Workspace) -> None:
        """Give each run the evaluated model's folder."""
        for evaluation in self.evaluations.values():
            share(evaluation, workspace)

    def __call__(self, model: nn.Module, processor: Any, device: torch.device) -> Result:
        """Run all, and put their figures side by side; tables and pictures are of the largest number."""
        found = {count: one(model, processor, device) for count, one in self.evaluations.items()}
        metrics = {
            f"{name}_{count}_shots": value for count, one in found.items() for name, value in one.metrics.items()
        }
        shown = next(iter(found.values())).headline
        rows: list[tuple[Cell, ...]] = [(count, *(one.metrics[name] for name in shown)) for count, one in found.items()]
        table = Table("by examples in front of each question", ("examples", *shown), rows)
        last = found[max(found)]
        details = {"counts": list(self.counts), "runs": {str(count): one.details for count, one in found.items()}}
        headline = tuple(f"{name}_{count}_shots" for name in shown[:1] for count in self.counts)
        return Result(last.name, metrics, [table, *last.tables], last.figures, details, headline)
