"""The comparison of methods: every run of every size is a recipe that fits its model; answers from known figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from multimodal_zoo.config import compose
from multimodal_zoo.training.groups import read_rules
from multimodal_zoo.zoo import build_model

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def comparison() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import method_comparison
    finally:
        sys.path.remove(str(BENCHMARKS))
    return method_comparison


@pytest.mark.parametrize("method", ["clip", "slip", "filip", "declip", "defilip"])
@pytest.mark.parametrize("size", ["hour", "full"])
def test_runs_compose_and_their_groups_fit(comparison: Any, size: str, method: str, tmp_path: Path) -> None:
    run = comparison.Run(method, 0.25, 3, 1)
    recipe, *overrides = run.words(tmp_path, comparison.SIZES[size])
    config: Any = OmegaConf.to_container(compose(recipe, overrides), resolve=True)
    assert (config["data"]["train"]["share"], config["model"]["text"]["blocks"]["depth"], config["seed"]) == (
        0.25,
        3,
        1,
    )
    assert sorted(name for name, node in config["evaluation"].items() if node) == sorted(
        {evaluation for evaluation, _, _ in comparison.FIGURES.values()}
    )
    parameters = dict(build_model(config["model"], device="meta").named_parameters())
    rules = read_rules(config["optim"]["groups"])
    rules.freeze(parameters)
    assert rules.groups(parameters, 1.0, 0.0)


def test_each_run_is_done_once(comparison: Any) -> None:
    runs = comparison.runs_of(comparison.SIZES["hour"], "abc")
    assert len(runs) == len(set(runs)) == 15 + 6 + 10


def test_answers(comparison: Any) -> None:
    reached = {0.1: 0.1, 0.25: 0.2, 0.5: 0.3, 1.0: 0.4}
    assert comparison.less_data(reached, 0.3) == "2.0x less data"
    assert comparison.less_data(reached, 0.35) == "1.4x less data"
    assert comparison.less_data(reached, 0.05) == "at least 10.0x less data"
    assert comparison.less_data(reached, 0.5) == "not reached"
    paper = comparison.PAPER
    assert comparison.agreement(paper) == 1
    assert comparison.agreement({name: -value for name, value in paper.items()}) == -1
    assert comparison.agreement(dict.fromkeys(paper, 1.0)) == 0
