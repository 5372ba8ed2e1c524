"""The comparison of directions: every run is a recipe that composes; rows from known figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from multimodal_zoo.config import compose

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import emu3_emoji
    finally:
        sys.path.remove(str(BENCHMARKS))
    return emu3_emoji


def plan(benchmark: Any, folder: Path) -> Any:
    return benchmark.Plan(folder=folder, steps=90, clip=None, seeds=2)


def test_runs_compose(benchmark, tmp_path) -> None:
    for run in benchmark.RUNS:
        recipe, *words = plan(benchmark, tmp_path / "a folder").language(run, 1)
        config: Any = OmegaConf.to_container(compose(recipe, words), resolve=True)
        kept = {"draw", "name"} if run.direction is None else {run.direction}
        assert set(config["data"]["layout"]["layouts"]) == set(config["data"]["layout"]["weights"]) == kept
        evaluated = {name for name, node in config["evaluation"].items() if node}
        wanted = [*(benchmark.DRAWN if "draw" in kept else ()), *(benchmark.NAMED if "name" in kept else ())]
        assert evaluated == set(wanted)
        assert config["trainer"]["max_steps"] == round(90 * run.share)
        assert config["data"]["train"]["tokenizer"] == str(tmp_path / "a folder" / "tokenizer" / "model")


def test_steps_are_the_recipes(benchmark) -> None:
    assert benchmark.recipe_steps() == compose("emu3/emoji_language").trainer.max_steps > 0


def test_rows_are_means_over_seeds_and_styles(benchmark, tmp_path) -> None:
    run, chosen = benchmark.RUNS[0], plan(benchmark, tmp_path)
    for seed, share in enumerate((0.2, 0.4)):
        figures = {name: {"clip_R@1": share, "true_R@1": 0.9} for name in benchmark.DRAWN}
        figures["drawn_unseen_openmoji"]["clip_R@1"] = 0.6
        place = tmp_path / f"{run.name}_seed{seed}"
        place.mkdir()
        (place / "result.json").write_text(json.dumps({"cpu_seconds": 10.0 * (seed + 1), **figures}))
    results = benchmark.results_of(chosen, run)
    row = benchmark.row_of(chosen, run, results)
    assert (row["seeds"], row["CPU s"], row["steps"]) == (2, 15, 90)
    assert row["drawn R@1"] == pytest.approx((0.2 + 0.6 + 0.4 + 0.6) / 4)
    assert (row["name exact"], row["seen, drawn R@1"]) == ("", pytest.approx(0.3))
    assert benchmark.real_row(results)["drawn R@1"] == pytest.approx(0.9)


def test_a_folder_of_other_runs_is_refused(benchmark, tmp_path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "result.json").write_text(json.dumps({"words": ["a"]}))
    benchmark.train("one", ["a"], tmp_path)
    with pytest.raises(ValueError, match="choose another --folder"):
        benchmark.train("one", ["b"], tmp_path)
