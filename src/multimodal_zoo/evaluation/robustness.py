"""Robustness: how much accuracy a model keeps when the distribution of the pictures shifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multimodal_zoo.evaluation.published import NOTHING, load_section, variant_of
from multimodal_zoo.evaluation.result import Cell, Result, Table
from multimodal_zoo.registry import EVALUATORS


@EVALUATORS.register_module(name="robustness_table")
class RobustnessTable:
    """Mean accuracy over shifted versions of a data set, and the effective drop from the original to it.

    EVA-CLIP's papers average over the original and its shifted versions together and call the original minus that mean
    the drop; both that and the mean of the shifted ones alone are given.

    Args:
        table: a file of `conf/published`.
        section: the table in it.
        reference: the evaluation of the original.
        shifted: the evaluations of its shifted versions.
    """

    def __init__(self, table: str, section: str, reference: str, shifted: Sequence[str]) -> None:
        self.section = load_section(table, section)
        self.reference = reference
        self.shifted = list(shifted)

    def summarise(self, results: Mapping[str, Result], absent: Mapping[str, str], model: Any) -> Result:
        """Published and measured means and drops; no table unless all versions are there.

        Args:
            results: what was measured, by evaluation.
            absent: evaluations whose data was not there, or that failed -> why.
            model: the measured model.
        """
        variant = variant_of(model)
        names = [self.reference, *self.shifted]
        figure = self.section.figure
        ours = self.figures({name: 100 * results[name].metrics[figure] for name in names if name in results})
        published = self.figures(self.section.column(variant))
        titles = {
            "shifted_mean": f"mean of the {len(self.shifted)} shifted versions",
            "mean": f"mean of all {len(names)}",
            "drop": "drop from the original to the mean of all",
            "shifted_drop": "drop from the original to the mean of the shifted",
        }
        rows: list[Sequence[Cell]] = [
            (title, _points(published.get(key)), _points(ours.get(key)), _difference(ours.get(key), published.get(key)))
            for key, title in titles.items()
        ]
        left_out = [name for name in names if name not in results]
        whose = f" ({variant})" if published else ""
        title = f"robustness to distribution shifts of {self.reference}{whose}, percentage points"
        tables = [Table(title, ("figure", "published", "ours", "difference"), rows)] if ours else []
        metrics = {key: value / 100 for key, value in ours.items()}
        about = {"absent": ", ".join(name for name in left_out if name in absent)}
        return Result("robustness_table", metrics, tables, details={"summary": True, "variant": variant, **about})

    def figures(self, top1: Mapping[str, float]) -> dict[str, float]:
        """Means and drops from accuracies by evaluation; empty unless all of them are there."""
        if any(name not in top1 for name in (self.reference, *self.shifted)):
            return {}
        original = top1[self.reference]
        shifted = sum(top1[name] for name in self.shifted) / len(self.shifted)
        mean = (original + sum(top1[name] for name in self.shifted)) / (1 + len(self.shifted))
        return {
            "shifted_mean": shifted,
            "mean": mean,
            "drop": original - mean,
            "shifted_drop": original - shifted,
        }


def _points(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _difference(ours: float | None, published: float | None) -> str:
    return NOTHING if ours is None or published is None else f"{ours - published:+.1f}"
