"""Schedules as formulas."""

from __future__ import annotations

import math

import pytest

from multimodal_zoo.training.schedule import (
    Constant,
    LogWarmupLinear,
    PolyWithWarmup,
    StartedCosine,
    WarmupCosine,
    WarmupLinear,
)


def test_cosine_with_a_warmup_in_steps() -> None:
    schedule = WarmupCosine(warmup=4, final=0.1)
    assert [schedule(s, 12) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule(4, 12) == 1.0
    assert schedule(8, 12) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert schedule(12, 12) == pytest.approx(0.1)
    assert schedule(99, 12) == pytest.approx(0.1)


def test_a_fraction_of_all_steps() -> None:
    assert WarmupCosine(warmup=0.5)(4, 10) == 1.0
    assert WarmupCosine(warmup=0.5)(3, 10) == 0.8
    assert Constant(warmup=0.2)(0, 10) == 0.5
    assert Constant(warmup=0)(0, 10) == 1.0


def test_a_warmup_from_a_rate_of_its_own() -> None:
    """The last warm-up step has the full rate, and the cosine starts from it."""
    schedule = StartedCosine(warmup=5, start=0.1, final=0.2)
    assert [schedule(s, 9) for s in range(5)] == pytest.approx([0.1, 0.325, 0.55, 0.775, 1.0])
    assert schedule(6, 9) == pytest.approx(0.2 + 0.8 * 0.5)
    assert schedule(8, 9) == schedule(50, 9) == pytest.approx(0.2)
    assert [StartedCosine(warmup=w, start=0.1)(0, 9) for w in (0, 1)] == [pytest.approx(0.9698463104), 1.0]
    assert StartedCosine(warmup=9, start=0.5)(8, 9) == 1.0
    with pytest.raises(ValueError, match=r"schedule\.start is -0.1"):
        StartedCosine(start=-0.1)


def test_a_power_beside_a_warmup() -> None:
    """The published rule: the line down does not wait for the warm-up, which begins at a share of its own."""
    schedule = PolyWithWarmup(warmup=4, start=0.1, power=2.0, final=0.2)
    line = [0.2 + 0.8 * (1 - step / 10) ** 2 for step in range(11)]
    assert [schedule(step, 10) for step in range(4)] == pytest.approx(
        [line[step] * (0.1 + 0.9 * step / 4) for step in range(4)]
    )
    assert [schedule(step, 10) for step in range(4, 11)] == pytest.approx(line[4:])
    assert schedule(99, 10) == pytest.approx(0.2)
    assert PolyWithWarmup(warmup=0.2, start=1.0)(1, 10) == pytest.approx(0.9)
    with pytest.raises(ValueError, match=r"schedule\.power is -1"):
        PolyWithWarmup(power=-1)


def test_a_warmup_along_a_logarithm() -> None:
    schedule = LogWarmupLinear(warmup=7, final=0.2)
    assert [schedule(s, 17) for s in (0, 2, 6)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert [schedule(s, 17) for s in (7, 12, 17, 30)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert LogWarmupLinear(warmup=1)(0, 4) == 1.0
    assert LogWarmupLinear(warmup=0)(0, 4) == 1.0


@pytest.mark.parametrize("warmup", [-1, 1.5])
def test_a_warmup_that_is_neither(warmup: float) -> None:
    with pytest.raises(ValueError, match=r"schedule\.warmup"):
        WarmupCosine(warmup=warmup)


def test_a_warmup_longer_than_training() -> None:
    with pytest.raises(ValueError, match=r"schedule.warmup is 20 steps but training has 10 \(trainer.max_steps\)"):
        Constant(warmup=20)(0, 10)


def test_a_negative_factor_is_refused() -> None:
    for schedule in (WarmupCosine, WarmupLinear):
        with pytest.raises(ValueError, match=r"schedule.final is -0.1; it must not be negative"):
            schedule(final=-0.1)
