"""The table of plans: every published variant is in it, the page shows what was recorded, rows are what a plan says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import multimodal_zoo as zoo

ROOT = Path(__file__).parents[1]
#: This library's own, by the end of their names or whole.
OWN = ("_tiny", "_tiny_views", "emu_smollm2", "eve_smollm2", "eve_smollm2_encoder")


@pytest.fixture(scope="module")
def benchmark() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import plan_table
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return plan_table


@pytest.fixture(scope="module")
def recorded() -> dict[str, dict[str, Any]]:
    rows = json.loads((ROOT / "benchmarks/results/plan_table.json").read_text())["rows"]
    return {row["variant"]: row for row in rows}


def test_every_published_variant_has_a_row(benchmark: Any, recorded: dict[str, dict[str, Any]]) -> None:
    published = {name for name in zoo.list_models() if not name.endswith(OWN)}
    assert set(benchmark.RECIPES) == set(recorded) == published
    for words in benchmark.RECIPES.values():
        assert words[0] in zoo.list_recipes()


def test_the_page_shows_what_was_recorded(benchmark: Any, recorded: dict[str, dict[str, Any]]) -> None:
    text = benchmark.PAGE.read_text(encoding="utf-8")
    assert benchmark.page(list(recorded.values()), text) == text


@pytest.mark.parametrize("variant", ["clip_vit_b32", "fast_bev_m0", "eve_7b"])
def test_rows_are_what_the_command_says(variant: str, benchmark: Any, recorded: dict[str, dict[str, Any]]) -> None:
    row, found = recorded[variant], benchmark.planned(benchmark.RECIPES[variant], 8)
    assert found["training_bytes"]["total"] / 1e9 == pytest.approx(row["8 GPU GB"], rel=1e-6)
    assert found["parameters"] == row["parameters"]
    assert sum(found["trained"].values()) == row["trained"]
    assert found["inference_bytes"]["float16 / bfloat16"] / 1e9 == pytest.approx(row["inference GB"])
