"""Recipes whose parts do not suit each other are refused before the first step, with the keys to change."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.registry import build
from multimodal_zoo.training.agreement import check_agreement
from multimodal_zoo.zoo import build_model

NARROW = ["model.embed_dim=16", "model.text.blocks.depth=1", "model.image.channels=[8,8,16]", "model.image.width=16"]
SMALL = [*NARROW, "data.batch_size=8", "data.train.splits=[val]", "data.validation=null"]


def agree(recipe: str, *overrides: str) -> None:
    """What training does before its first step."""
    config = compose(recipe, [*SMALL, *overrides])
    node = OmegaConf.to_container(config, resolve=True)
    assert isinstance(node, dict)
    model = build_model(node["model"], seed=0)
    data = build(node["data"], path="data", processor=model.processor)
    objective = build(node["objective"], path="objective")
    if hasattr(objective, "check"):
        objective.check(model)
    check_agreement(objective, model, data)


@pytest.mark.parametrize("method", ["clip", "slip", "filip", "declip", "defilip"])
def test_the_methods_agree(method: str) -> None:
    agree(f"clip_benchmark/{method}_emoji")


def test_clip_takes_plain_pairs_too() -> None:
    agree("quickstart", "objective=clip")
    agree("quickstart")


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "clip_benchmark/slip_emoji",
            ["data=emoji_views_clip"],
            r"the objective needs the image views first, second, the data gives plain; .*data",
        ),
        ("clip_benchmark/declip_emoji", ["data=emoji"], r"needs the image views first, second, the data gives plain"),
        (
            "clip_benchmark/declip_emoji",
            ["~data.text_views.augmented"],
            r"the objective needs the text views augmented, the data gives masked",
        ),
        (
            "clip_benchmark/filip_emoji",
            ["text_view@data.text_views.masked=plain", "+supervision@objective.parts.masked_words=masked_words",
             "+objective.weights.masked_words=1.0"],
            r"needs masked words in the text view masked",
        ),
        ("quickstart", ["data=emoji_views_declip", "model=declip_tiny"], r"the data give views \(first, second, mask"),
        (
            "clip_benchmark/declip_emoji",
            ["objective.parts.nearest_neighbour.queue.size=7"],
            r"objective.parts.nearest_neighbour: queue.size is 7, smaller than the batch of 8 pairs",
        ),
        (
            "clip_benchmark/clip_emoji",
            ["tokenizer@model.processor.texts=clip_bpe_subset", "model.processor.texts.vocab_size=4000"],
            r"model.processor.texts.vocab_size is 4000, the text tower has 4532 ids \(model.text.vocab_size\)",
        ),
        (
            "clip_benchmark/declip_emoji",
            ["model.heads.masked_words.vocab_size=4531"],
            r"objective.parts.masked_words: model.heads.masked_words.vocab_size is 4531, the text tower's is 4532",
        ),
        (
            "clip_benchmark/declip_emoji",
            ["model=clip_tiny_views"],
            r"objective.parts.simsiam: needs model.heads.simsiam, the model has no heads; add \+head@model.heads.sims",
        ),
    ],
)  # fmt: skip
def test_what_does_not_agree(recipe: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        agree(recipe, *overrides)


def test_the_command_asks_before_it_trains(tmp_path: Any) -> None:
    overrides = ["data=emoji_views_clip", f"run.dir={tmp_path}", "trainer.max_steps=1", "keep_memory=false"]
    with pytest.raises(ValueError, match=r"needs the image views first, second"):
        run(compose("clip_benchmark/slip_emoji", [*SMALL, *overrides]))


#: CLIP and SimSiam: a supervision with its weight, a head, and the views that it needs.
SIXTH = [
    "+supervision@objective.parts.simsiam=simsiam",
    "+objective.weights.simsiam=0.5",
    "+head@model.heads.simsiam=simsiam",
    "+image_view@data.image_views.first=emoji_strong",
    "+image_view@data.image_views.second=emoji_strong",
]


def test_a_sixth_method_from_overrides_alone(tmp_path: Any) -> None:
    from multimodal_zoo.evaluation.history import read_metrics

    quick = ["trainer.max_steps=2", "trainer.log_every_n_steps=1", f"run.dir={tmp_path}", "callbacks.samples=null"]
    quick += ["evaluation=null", "logger=csv", "keep_memory=false"]
    run(compose("clip_benchmark/clip_emoji", [*SMALL, *SIXTH, *quick]))
    rows = [row for row in read_metrics(tmp_path / "metrics.csv") if "train/loss" in row]
    assert len(rows) == 2
    for row in rows:
        assert row["train/loss"] == pytest.approx(row["train/image_text"] + 0.5 * row["train/simsiam"], rel=1e-5)


def test_groups_are_added_to_a_recipe_in_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """Hydra by itself would look for them beside the recipe."""
    from multimodal_zoo.commands.app import run_hydra

    run_hydra("train", ["clip_benchmark/clip_emoji", *SIXTH, "--cfg", "job", "--package", "objective"])
    assert "type: simsiam" in capsys.readouterr().out
    plain = compose("clip_benchmark/clip_emoji", SIXTH)
    assert plain.run.name == "clip_emoji"
    assert list(plain.objective.parts) == ["image_text", "simsiam"]
