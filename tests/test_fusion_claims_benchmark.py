"""The comparison of caption sets on emoji: sets lead to policies that build, cells to recipes, figures to rows."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.emoji_table import load_table
from multimodal_zoo.registry import build

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import fusion_claims
    finally:
        sys.path.remove(str(BENCHMARKS))
    return fusion_claims


@pytest.fixture
def captions(benchmark: Any, tmp_path: Path) -> Any:
    found = benchmark.Captions(tmp_path / "a folder")
    lines = [{"key": "twemoji/1f600", "raw": "GRIN png", "synthetic": "A drawing of a face."}]
    sets = sys.modules["fusion_parts.sets"]
    sets.write_lines(found.pairs, lines)
    sets.write_lines(found.table("raw"), [{"key": one["key"], "raw": one["raw"]} for one in lines])
    return found


def test_policies_give_the_captions_of_their_set(benchmark: Any, captions: Any) -> None:
    captions.write_fused("rules", {"twemoji/1f600": "A drawing of a face: GRIN."})
    captions.write_fused("student", {"twemoji/1f600": ""})  # rejected: the synthetic caption stands in
    document = Document([Text("grinning face")], {"key": "twemoji/1f600"})
    wanted = {
        "raw": {"GRIN png"},
        "synthetic": {"A drawing of a face."},
        "mix": {"GRIN png", "A drawing of a face."},
        "rules": {"A drawing of a face: GRIN."},
        "student": {"A drawing of a face."},
        "names": {"grinning face"},
    }
    for name, texts in wanted.items():
        assert captions.ready(name)
        policy: Any = build(captions.policy(name))
        assert {policy(document, Random(seed)) for seed in range(20)} == texts
    assert not captions.ready("smollm2")


def test_answers_of_other_pictures_are_refused(captions: Any) -> None:
    with pytest.raises(ValueError, match="none of 1 captions belongs to a training emoji"):
        captions.write_fused("rules", {"openmoji/1f600": "A face."})


@pytest.mark.parametrize("model", ["clip", "emu"])
def test_cells_compose_with_the_policy_and_the_size(benchmark: Any, captions: Any, tmp_path: Path, model: str) -> None:
    cells = sys.modules["fusion_parts.cells"]
    captions.folder.mkdir(parents=True, exist_ok=True)
    (captions.folder / "pieces.txt").write_text("320\n321\n")
    cell = benchmark.Cell("mix", 0.4, model, seed=3)
    if model == "clip":
        config = cells.clip_recipe(cell, captions, tmp_path / "run", 7)
        assert config.data.captions == captions.policy("mix")
        assert (config.model.text.vocab_size, config.model.processor.texts.vocab_size) == (6, 6)
    else:
        config = cells.emu_recipe(cell, captions, tmp_path / "run", 7, tmp_path / "tower")
        assert config.data.layout.captions == captions.policy("mix")
        assert config.initial_weights.image == str(tmp_path / "tower")
    assert (config.seed, config.trainer.max_steps, config.data.train.share) == (3, 7, 0.4)
    assert cells.pictures_of(0.4) == 594  # 40 % of the concepts, of 1,554 pictures


def test_a_pair_is_seen_equally_often_at_every_size(benchmark: Any) -> None:
    budget = benchmark.Budget(clip=20, emu=8)
    small, large = benchmark.Cell("raw", 0.16, "clip"), benchmark.Cell("raw", 1.0, "clip")
    assert (budget.steps(small, 256), budget.steps(large, 1536)) == (40, 240)
    assert budget.steps(benchmark.Cell("raw", 1.0, "emu"), 640) == 80


def test_rows_have_means_and_the_larger_of_both_errors(benchmark: Any) -> None:
    def result(mean: float, error: float) -> dict[str, Any]:
        one = {"mean": mean, "error": error, "count": 9}
        part = dict.fromkeys(("cider", "plain_cider", "names"), one)
        return {"pictures": 620, "seen": part, "unseen": part}

    cells = [benchmark.Cell("raw", 0.4, "emu", seed) for seed in range(2)]
    found = {cells[0]: result(0.1, 0.01), cells[1]: result(0.3, 0.02)}
    mean, error = benchmark.point(found, "raw", 0.4, "names kept seen")
    assert (mean, error) == (pytest.approx(0.2), pytest.approx(0.1))  # between the seeds; over pictures 0.02 / sqrt(2)
    (row,) = benchmark.rows_of(found)
    assert (row["pairs"], row["seeds (CLIP / Emu)"], row["names kept seen"]) == (620, "0 / 2", "20.0 ± 10.0")
    assert (row["CIDEr seen"], row["seen names R@1"]) == ("0.2 ± 0.1", "")


def test_names_are_kept_as_words(benchmark: Any) -> None:
    scores = sys.modules["fusion_parts.scores"]
    rows = {row.name: row for row in load_table()}
    camel = rows["two-hump camel"]
    assert scores.kept_names("A drawing of an animal: Two-Hump CAMEL.", camel) == 1.0
    assert scores.kept_names("A drawing of an animal.", camel) == 0.0
    assert scores.kept_names("anything", rows["person"]) is None
    assert scores.share_and_error(0.5, 100) == {"mean": 0.5, "error": 0.05, "count": 100}
    assert scores.mean_and_error([1.0, 3.0]) == {"mean": 2.0, "error": pytest.approx(1.0), "count": 2}
    assert math.isfinite(scores.mean_and_error([1.0])["mean"])


def test_a_finished_cell_of_another_budget_is_refused(benchmark: Any, captions: Any, tmp_path: Path) -> None:
    cells = sys.modules["fusion_parts.cells"]
    cell = benchmark.Cell("names", 0.16, "clip")
    (tmp_path / f"{cell.name}.json").write_text(json.dumps({"steps": 1}))
    with pytest.raises(ValueError, match="comes from 1 steps"):
        cells.finish(cell, captions, tmp_path, benchmark.Budget(20, 8))
