"""Learning-rate schedules: pure functions of the optimiser step, applied to every group's own base rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

#: (step from 0, total steps) -> factor on the base learning rate.
Schedule = Callable[[int, int], float]


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine (SGDR, arXiv:1608.03983, without restarts).

    Step s of w warm-up steps has factor (s + 1) / w, so that no step is wasted at zero; step s >= w of n steps has
    `final + (1 - final) * (1 + cos(pi * (s - w) / (n - w))) / 2`.

    Attributes:
        warmup: steps if an int, a fraction of all steps if a float below 1.
        final: factor that the cosine ends on.
    """

    warmup: int | float = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_factors(final=self.final)

    def __call__(self, step: int, total: int) -> float:
        """Factor at `step` of `total`."""
        warmup = warmup_steps(self.warmup, total)
        if step < warmup:
            return self.up(step, warmup)
        progress = min(1.0, (step - warmup) / max(1, total - warmup))
        return self.final + (1 - self.final) * self.down(progress)

    def up(self, step: int, warmup: int) -> float:
        """The factor at a step of the warm-up, 1 at its last."""
        return (step + 1) / warmup

    def down(self, progress: float) -> float:
        """From 1 to 0 while `progress` goes from 0 to 1."""
        return 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class WarmupLinear(WarmupCosine):
    """Linear warm-up, then a straight line down.

    Step s of w warm-up steps has factor (s + 1) / w; step s >= w of n has `1 - (1 - final) * (s - w) / (n - w)`.

    Attributes:
        warmup: steps if an int, a fraction of all steps if a float below 1.
        final: factor that the line ends on.
    """

    def down(self, progress: float) -> float:
        """A straight line."""
        return 1 - progress


@dataclass(frozen=True)
class LogWarmupLinear(WarmupCosine):
    """Warm-up along a logarithm, then a straight line down: Emu2's visual decoder (arXiv:2312.13286, supplement).

    Step s of w warm-up steps has factor log(s + 2) / log(w + 1): most of the rate is there early. The line is that of
    `WarmupLinear`.

    Attributes:
        warmup: steps if an int, a fraction of all steps if a float below 1.
        final: factor that the line ends on.
    """

    def up(self, step: int, warmup: int) -> float:
        """A logarithm from the first step on, without one at zero."""
        return math.log(step + 2) / math.log(warmup + 1)

    def down(self, progress: float) -> float:
        """A straight line."""
        return 1 - progress


@dataclass(frozen=True)
class StartedCosine:
    """Linear warm-up from a rate of its own, then half a cosine, as DeCLIP's recipes count it (arXiv:2110.05208, code).

    Step 0 has the factor `start`, step w - 1, the last of w >= 2 warm-up steps, has 1, and the cosine begins there (at
    step 0 without them): step s >= w - 1 of n has `final + (1 - final) * (1 + cos(pi * (s - w + 1) / (n - w))) / 2`.

    Attributes:
        warmup: steps if an int, a fraction of all steps if a float below 1.
        start: factor of the first step.
        final: factor that the cosine ends on.

    Raises:
        ValueError: a warm-up that is neither, or a negative factor.
    """

    warmup: int | float = 0
    start: float = 0.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_factors(start=self.start, final=self.final)

    def __call__(self, step: int, total: int) -> float:
        """Factor at `step` of `total`."""
        count, warmup = step + 1, warmup_steps(self.warmup, total)
        if count < warmup:
            return self.start + (1 - self.start) * (count - 1) / (warmup - 1)
        progress = min(1.0, (count - warmup) / max(1, total - warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class PolyWithWarmup:
    """A power of the share that is left, and beside it a linear warm-up that starts at a share of its own.

    Step s of n has `final + (1 - final) * (1 - s / n) ** power`, which during the first w steps is multiplied by
    `1 - (1 - s / w) * (1 - start)`: the line down does not wait for the warm-up. So the released configurations of
    Fast-BEV count it (arXiv 2301.12511; their `poly` policy with linear warm-up).

    Attributes:
        warmup: steps if an int, a fraction of all steps if a float below 1.
        start: factor of the warm-up at the first step.
        power: of the share that is left.
        final: factor that the rate ends on.

    Raises:
        ValueError: a warm-up that is neither, or a negative factor or power.
    """

    warmup: int | float = 0
    start: float = 0.0
    power: float = 1.0
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)
        _check_factors(start=self.start, power=self.power, final=self.final)

    def __call__(self, step: int, total: int) -> float:
        """Factor at `step` of `total`."""
        warmup = warmup_steps(self.warmup, total)
        factor = self.final + (1 - self.final) * max(0.0, 1 - step / max(1, total)) ** self.power
        return factor * (1 - (1 - step / warmup) * (1 - self.start)) if step < warmup else factor


@dataclass(frozen=True)
class Constant:
    """Linear warm-up, then the base rate.

    Attributes:
        warmup: steps if an int, a fraction of all steps if a float below 1.
    """

    warmup: int | float = 0

    def __post_init__(self) -> None:
        _check_warmup(self.warmup)

    def __call__(self, step: int, total: int) -> float:
        """Factor at `step` of `total`."""
        warmup = warmup_steps(self.warmup, total)
        return (step + 1) / warmup if step < warmup else 1.0


def warmup_steps(warmup: int | float, total: int) -> int:
    """Warm-up as a number of steps.

    Raises:
        ValueError: it is longer than the training.
    """
    steps = round(warmup * total) if isinstance(warmup, float) and warmup < 1 else int(warmup)
    if steps > total:
        raise ValueError(f"schedule.warmup is {steps} steps but training has {total} (trainer.max_steps)")
    return steps


def _check_warmup(warmup: int | float) -> None:
    if warmup < 0 or (isinstance(warmup, float) and warmup >= 1 and warmup != int(warmup)):
        raise ValueError(f"schedule.warmup is {warmup}; give a number of steps, or a fraction of all steps below 1")


def _check_factors(**factors: float) -> None:
    for key, value in factors.items():
        if value < 0:
            raise ValueError(f"schedule.{key} is {value}; it must not be negative")


def scheduler(optimizer: Optimizer, schedule: Schedule, total: int) -> LambdaLR:
    """A torch scheduler, stepped once per optimiser step, that multiplies each group's base rate."""
    return LambdaLR(optimizer, lambda step: schedule(step, total))
