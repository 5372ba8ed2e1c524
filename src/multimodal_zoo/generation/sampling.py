"""Choosing the next token: greedy, or drawn with temperature, top-k and top-p, each row from a seed of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

#: One number for all steps, or one for each; the last one holds for all further steps.
Schedule: TypeAlias = float | Sequence[float]


def at_step(schedule: Schedule, step: int) -> float:
    """The number of a schedule at a step, counted from 0."""
    if isinstance(schedule, (int, float)):
        return float(schedule)
    return float(schedule[min(step, len(schedule) - 1)])


def check_schedule(schedule: Schedule, name: str, positive: bool) -> None:
    """Refuse an empty schedule and numbers that are not finite, or not positive where they must be.

    Raises:
        ValueError: with the name and the number.
    """
    numbers = [schedule] if isinstance(schedule, (int, float)) else list(schedule)
    if not numbers:
        raise ValueError(f"{name} is empty; give a number, or one for each step")
    for number in numbers:
        if not math.isfinite(number) or (positive and number <= 0):
            raise ValueError(f"{name} is {number}; expected a finite number{' above 0' if positive else ''}")


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen from scores, in the published order: temperature, then top-k, then top-p.

    Attributes:
        greedy: take the highest score; nothing else counts then.
        temperature: the scores are divided by it; one number, or one for each step.
        top_k: only the so many highest scores can be drawn, and those equal to the last of them; None for all.
        top_p: only the fewest highest scores whose probabilities come to this share or more (arXiv 1904.09751), and
            those equal to the last of them; 1 for all.
    """

    greedy: bool = False
    temperature: Schedule = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        check_schedule(self.temperature, "sampling.temperature", positive=True)
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"sampling.top_k is {self.top_k}; expected 1 or more, or none for all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"sampling.top_p is {self.top_p}; expected a share above 0, up to 1")

    def filtered(self, scores: Tensor, step: int = 0) -> Tensor:
        """Scores over the temperature, -inf where an id cannot be drawn.

        Args:
            scores: float (rows, n), log-probabilities up to a constant of each row; -inf forbids.
            step: of the schedule of the temperature.
        """
        scores = scores.float()
        if (temperature := at_step(self.temperature, step)) != 1:
            scores = scores / temperature
        cut = self.top_k is not None and self.top_k < scores.shape[-1]
        if not cut and self.top_p == 1:
            return scores
        count = self.top_k if cut else scores.shape[-1]
        highest = scores.topk(count, sorted=self.top_p < 1).values  # type: ignore[arg-type]
        last = highest.amin(-1, keepdim=True) if self.top_p == 1 else self._last(highest, scores)
        return scores.masked_fill(scores < last, float("-inf"))

    def _last(self, highest: Tensor, scores: Tensor) -> Tensor:
        """The lowest score that top-p leaves of the highest ones, (rows, 1); equal scores are one."""
        tied = (scores == highest[:, -1:]).sum(-1, keepdim=True) - (highest == highest[:, -1:]).sum(-1, keepdim=True)
        weights = (highest - highest[:, :1]).exp()
        whole = weights.sum(-1, keepdim=True) + tied * weights[:, -1:]
        before = weights.cumsum(-1) - weights
        kept = (before < self.top_p * whole).sum(-1, keepdim=True)
        return highest.gather(-1, kept - 1)

    def probabilities(self, scores: Tensor, step: int = 0) -> Tensor:
        """What each id is drawn with, float32 of the shape of `scores` (`filtered` describes them); rows sum to 1."""
        return self.filtered(scores, step).softmax(-1)

    def choose(self, scores: Tensor, numbers: Tensor | None, step: int = 0) -> Tensor:
        """The place of one score in each row, long (rows,).

        Args:
            scores: as for `filtered`.
            numbers: one number in [0, 1) for each row; unused, and may be None, if greedy.
            step: of the schedule of the temperature.
        """
        if self.greedy:
            return scores.argmax(-1)
        if numbers is None:
            raise ValueError("sampling needs a number for each row, or greedy=True")
        return inverse(self.probabilities(scores, step), numbers)


def inverse(probabilities: Tensor, numbers: Tensor) -> Tensor:
    """The place in each row where the running sum of probabilities passes a number in [0, 1).

    Places of probability 0 never come out and change nothing, so a number chooses the same id among a slice of the
    vocabulary as among the whole, where the others have none.

    Args:
        probabilities: (rows, n), not all 0.
        numbers: (rows,).

    Returns:
        long (rows,).
    """
    exact = torch.float32 if probabilities.device.type == "mps" else torch.float64
    sums = probabilities.to(exact).cumsum(-1)
    whole = sums[:, -1:]
    wanted = torch.minimum(numbers.to(sums)[:, None] * whole, torch.nextafter(whole, torch.zeros_like(whole)))
    return torch.searchsorted(sums, wanted, right=True)[:, 0]


def row_seeds(seeds: Sequence[int] | None, rows: int, what: str = "prompts") -> list[int]:
    """One seed for each row.

    Args:
        seeds: of the rows; None for 0, 1, 2, ...
        rows: how many there are.
        what: what the rows are, for the error.

    Raises:
        ValueError: seeds for another number of rows.
    """
    found = list(range(rows)) if seeds is None else list(seeds)
    if len(found) != rows:
        raise ValueError(f"{len(found)} seeds for {rows} {what}; give one for each")
    return found


def row_numbers(seeds: Sequence[int], steps: int, device: torch.device | str) -> Tensor:
    """Uniform numbers in [0, 1), float64 (rows, steps): those of a row depend on its seed alone.

    They are drawn on the CPU, so that a seed means the same on every device, in every batch and for any `steps`.
    """
    rows = [torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    numbers = torch.stack(rows)
    return numbers.float().to(device) if torch.device(device).type == "mps" else numbers.to(device)
