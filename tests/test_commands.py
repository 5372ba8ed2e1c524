"""The commands that only look: list, describe, plan."""

from __future__ import annotations

import json

import pytest

from multimodal_zoo.cli import main


def test_list_shows_variants_recipes_and_parts(capsys) -> None:
    assert main(["list", "clip*"]) == 0
    shown = capsys.readouterr().out
    assert "clip_vit_b16" in shown
    assert "encoder=" in shown
    assert main(["list", "nothing_like_this"]) == 1


def test_describe_prints_the_whole_card(capsys) -> None:
    assert main(["describe", "clip_vit_b32"]) == 0
    shown = capsys.readouterr().out
    for word in ("151,277,313", "2103.00020", "MIT", "clip_bpe"):
        assert word in shown
    assert "mean: 0.48145466, 0.4578275, 0.40821073" in shown


def test_describe_prints_brackets_of_special_tokens(capsys) -> None:
    assert main(["describe", "emu_tiny"]) == 0
    shown = capsys.readouterr().out
    assert "[IMG]" in shown
    assert "[/IMG]" in shown


def test_plan_computes_without_allocating(capsys) -> None:
    words = [
        "plan",
        "clip_tiny",
        "batch_size=8",
        "strategy=fsdp",
        "devices=4",
        "model.text.blocks.depth=1",
        "json=true",
    ]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["setting"]["devices"] == 4
    assert found["parameters"] == 2143761 - 198272  # one text block of width 128 less
    assert found["flops"]["image"] > 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["plan"], "needs a variant"),
        (["plan", "clip_tny"], "closest: clip_tiny"),
        (["plan", "clip_tiny", "batch_size=many"], "batch_size=many: expected a whole number"),
        (["plan", "clip_tiny", "strategy=magic"], "it takes single"),
        (["plan", "clip_tiny", "dtype=int8"], "mmzoo plan takes batch_size"),
        (["describe"], "needs a variant"),
    ],
)
def test_bad_words_get_a_readable_error(words, expected, capsys) -> None:
    assert main(words) == 1
    assert expected in capsys.readouterr().err


def test_list_takes_a_word_or_a_pattern(capsys) -> None:
    assert main(["list", "tiny"]) == 0
    shown = capsys.readouterr().out
    assert "eva_clip_tiny" in shown
    assert "clip_vit_b32" not in shown
    assert main(["list", "tinie?"]) == 1
