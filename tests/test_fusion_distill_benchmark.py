"""The comparison of SmolLM2 before and after distillation: figures of hand-made answers, and recipes that compose."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from multimodal_zoo.config import compose
from multimodal_zoo.data.emoji_table import load_table
from multimodal_zoo.data.emoji_triples import Triple, specific_names, triples

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import fusion_distill
    finally:
        sys.path.remove(str(BENCHMARKS))
    return fusion_distill


def triple(name: str, raw: str) -> Triple:
    row = next(row for row in load_table() if row.name == name)
    synthetic = "A drawing of a piece of sweet food in red."
    return Triple(name, row, "twemoji", raw, synthetic, f"A drawing of a {name}, a piece of sweet food in red.")


ROWS = [triple("red apple", "red apple - IMG_7731.jpg"), triple("kiwi fruit", "stock photo kiwi fruit")]


@pytest.fixture(scope="module")
def way(benchmark: Any) -> Any:
    return benchmark.Way("by hand", "default")


def test_targets_are_fusions(benchmark: Any, way: Any) -> None:
    found = benchmark.figures(way, ROWS, [one.fused for one in ROWS])
    exact = {"names kept": 1.0, "noise kept": 0.0, "copied": 0.0, "joined": 0.0, "leaks": 0.0, "fusions": 1.0}
    assert {name: found[name] for name in exact} == exact
    assert found["ROUGE-L"] == pytest.approx(1.0)
    assert found["synthetic kept"] == found["distinct"] == 1.0


def test_sources_and_joins_are_not(benchmark: Any, way: Any) -> None:
    raw = benchmark.figures(way, ROWS, [one.raw for one in ROWS])
    assert (raw["names kept"], raw["noise kept"], raw["copied"], raw["fusions"]) == (1.0, 1.0, 1.0, 0.0)
    synthetic = benchmark.figures(way, ROWS, [one.synthetic for one in ROWS])
    assert synthetic["copied"] == synthetic["synthetic kept"] == 1.0
    assert (synthetic["names kept"], synthetic["fusions"], synthetic["distinct"]) == (1 / len(names()), 0.0, 0.5)
    joined = benchmark.figures(way, ROWS, [f"{one.synthetic} {one.raw}" for one in ROWS])
    assert (joined["joined"], joined["copied"], joined["fusions"]) == (1.0, 0.0, 0.0)
    leaked = benchmark.figures(way, ROWS, ["Two captions describe the same apple.", ROWS[1].fused])
    assert (leaked["leaks"], leaked["fusions"]) == (0.5, 0.5)


def names() -> list[str]:
    """The specific names of both rows; the synthetic caption says `red` by its colour."""
    return [name for one in ROWS for name in specific_names(one.row)]


def test_noise_is_that_of_the_row(benchmark: Any) -> None:
    raw = "RED APPLE_IMG_7731.JPG_Free Download_2048x2048"
    for text in ("a free download of an apple", "img_7731.jpg", "A 2048x2048 apple."):
        assert benchmark.keeps_noise(raw, text), text
    assert not benchmark.keeps_noise(raw, "a red apple, a stock photo")
    assert not benchmark.keeps_noise("red apple", "free download")


def test_held_out_rows(benchmark: Any, tmp_path: Path) -> None:
    captions = benchmark.Captions(tmp_path)
    said = {one.key: f"A drawing of number {number}." for number, one in enumerate(triples(("train", "test")))}
    lines = [json.dumps({"key": key, "synthetic": text}) for key, text in said.items()]
    captions.synthetic.write_text("\n".join(lines), encoding="utf-8")
    rows = benchmark.test_rows(12, captions)
    assert [one.synthetic for one in rows] == [said[one.key] for one in rows]
    assert len(rows) == len({one.key for one in rows}) == 12
    assert {one.row.split for one in rows} == {"test"}
    assert [one.key for one in benchmark.test_rows(5, captions)] == [one.key for one in rows[:5]]


def test_students_are_trained_by_the_recipe(benchmark: Any) -> None:
    plain = compose("capsfusion/emoji_distill", [])
    adapted = compose("capsfusion/emoji_distill", list(benchmark.ADAPTERS))
    for config in (plain, adapted):
        assert list(config.data.train.splits) == ["train"]
        assert config.initial_weights.decoder == benchmark.SMOLLM2
        assert config.data.layout.prompt == compose(None, ["+fusion_prompt=short"]).fusion_prompt
    assert adapted.optim.groups.only == ["*.adapter.*"]
    assert adapted.trainer.max_steps == plain.trainer.max_steps
    titles = [way.title for way in benchmark.ways("a", "b")]
    assert len(set(titles)) == len(titles) == 8


def test_examples_show_every_answer(benchmark: Any) -> None:
    said = {"rules": ["a | b", "c"], "raw caption": ["x", "y"]}
    shown = benchmark.examples(ROWS, said)
    assert [line["emoji"] for line in shown] == ["red apple", "", "", "", "kiwi fruit", "", "", ""]
    assert [line["text"] for line in shown if line["caption"] == "rules"] == ["a \\| b", "c"]
