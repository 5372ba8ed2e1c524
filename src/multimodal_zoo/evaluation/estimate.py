"""A figure over the seeds of one method: its mean and how sure that is."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from multimodal_zoo.evaluation.ranking import interval

#: Student's t at 97.5 % for 1 to 9 degrees of freedom.
STUDENT = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
#: Figures that are shares of independent trials, for which one run alone has an interval.
SHARES = re.compile(r"(\w+_)?top[15]|(image_to_text|text_to_image)_(concept_)?R@\d+")


@dataclass(frozen=True)
class Estimate:
    """One figure of one method.

    Attributes:
        values: one for each run that has it.
        runs: how many runs the method has.
        low: lower bound of the 95 % interval; None where nothing is known.
        high: its upper bound.
        interval: where the bounds come from: `t` over runs, `wilson` over the samples of a single run, or empty.
    """

    values: tuple[float, ...]
    runs: int
    low: float | None = None
    high: float | None = None
    interval: str = ""

    @property
    def mean(self) -> float:
        """Over the runs that have it."""
        return sum(self.values) / len(self.values)  # statistics.fmean raises at -inf beside inf

    def __str__(self) -> str:
        """`0.412 ± 0.010` over runs, `0.412 (0.380-0.444)` of one run; fewer values than runs are said."""
        text = f"{self.mean:.3f}"
        if self.interval == "t" and self.high is not None:
            text += f" ± {self.high - self.mean:.3f}"
        elif self.low is not None:
            text += f" ({self.low:.3f}-{self.high:.3f})"
        return text if len(self.values) == self.runs else f"{text} [{len(self.values)} of {self.runs}]"


def estimate(values: Sequence[float], runs: int, figure: str, trials: int | None = None) -> Estimate:
    """Mean and 95 % interval: Student's over several runs; over one run Wilson's, if the figure is a share.

    Args:
        values: of each run that has the figure, at least one.
        runs: how many runs there are.
        figure: its name; decides whether it is a share.
        trials: samples that a share counts, where known.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError(f"{figure}: there is no value to estimate from")
    found = tuple(values)
    if not all(map(math.isfinite, found)):  # a training that diverged: its mean says so, and nothing bounds it
        return Estimate(found, runs)
    if len(found) > 1:
        half = student(len(found) - 1) * statistics.stdev(found) / math.sqrt(len(found))
        mean = Estimate(found, runs).mean
        return Estimate(found, runs, mean - half, mean + half, "t")
    if trials and SHARES.fullmatch(figure) and 0 <= found[0] <= 1:
        return Estimate(found, runs, *interval(found[0], trials), "wilson")
    return Estimate(found, runs)


def student(freedom: int) -> float:
    """Student's t at 97.5 %: a table, then Cornish and Fisher's expansion, off by less than 1e-3.

    Args:
        freedom: degrees of freedom, at least 1.
    """
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = 1.959964
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
