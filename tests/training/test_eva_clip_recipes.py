"""The published recipes of EVA-CLIP: each composes, and its optimiser groups and schedule fit its model."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from multimodal_zoo.config import compose
from multimodal_zoo.registry import build
from multimodal_zoo.training.deferred import deferred_model
from multimodal_zoo.training.groups import read_rules
from multimodal_zoo.training.schedule import warmup_steps
from multimodal_zoo.zoo import build_model

#: The published table: global batch, learning rates and layer decays of both towers, weight decay, patch dropout, and
#: how many samples are trained on (within one step of the whole number).
PUBLISHED = {
    "g14": (40_960, 4e-4, 4e-5, 0.85, 0.75, 0.05, 0.5, 11e9),
    "g14_plus": (114_688, 4e-4, 4e-5, 0.85, 0.75, 0.05, 0.5, 11e9),
    "b16": (131_072, 2e-4, 2e-5, 0.75, 0.75, 0.05, 0.0, 8e9),
    "l14": (131_072, 4e-4, 4e-5, 0.85, 0.75, 0.05, 0.0, 4e9),
    "l14_336": (61_440, 4e-4, 4e-5, 0.75, 0.65, 0.05, 0.0, 2e9),
    "e14": (115_200, 4e-4, 4e-5, 0.9, 0.75, 0.05, 0.5, 4e9),
    "e14_plus": (144_000, 4e-4, 4e-5, 0.9, 0.75, 0.05, 0.5, 9e9),
    "8b": (178_176, 4e-4, 4e-5, 0.9, 0.75, 0.0, 0.5, 9e9),
    "8b_448": (24_576, 2e-4, 2e-5, 0.85, 0.75, 0.0, 0.0, 0.8e9),
    "18b": (108_000, 4e-4, 4e-5, 0.9, 0.75, 0.0, 0.5, 5.4e9),
    "18b_stage2": (108_000, 4e-4, 4e-5, 0.9, 0.75, 0.0, 0.0, 0.62e9),
    "18b_stage3": (108_000, 4e-4, 4e-5, 0.9, 0.75, 0.0, 0.5, 24e6),
}


@cache
def resolved(name: str) -> dict[str, Any]:
    """A recipe whose data and start are given."""
    given = ["initial_weights=null"]
    config = compose(f"eva_clip/{name}", given)
    readers = config.data.train.sources.values() if "weights" in config.data.train else [config.data.train]
    for reader in readers:
        reader.sources = "x"
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_says_what_was_published(name: str) -> None:
    recipe = resolved(name)
    batch, image, text, image_decay, text_decay, decay, dropout, samples = PUBLISHED[name]
    trainer, towers = recipe["trainer"], recipe["optim"]["groups"]["towers"]
    assert recipe["data"]["batch_size"] * 8 * trainer["num_nodes"] == batch
    assert abs(trainer["max_steps"] * batch - samples) <= batch
    assert (towers["image"]["lr"], towers["image"]["layer_decay"]["rate"]) == (image, image_decay)
    assert (towers["text"]["lr"], towers["text"]["layer_decay"]["rate"]) == (text, text_decay)
    assert (recipe["optim"]["lr"], recipe["optim"]["weight_decay"]) == (5e-4, decay)
    large = name.startswith(("8b", "18b"))
    assert (tuple(recipe["optim"]["betas"]), recipe["optim"]["eps"]) == (
        ((0.9, 0.95), 1e-6) if large else ((0.9, 0.999), 1e-8)
    )
    model = recipe["model"]
    assert model["image"]["patch_dropout"]["rate"] == dropout
    assert model["image"]["blocks"]["drop_path"] == (0.4 if name == "g14" else 0.0)
    assert model["image"]["blocks"]["checkpoint"] == model["text"]["blocks"]["checkpoint"] == "block"
    assert trainer["gradient_clip_val"] == 5.0
    assert recipe["schedule"]["warmup"] == (0 if "stage" in name else 2000)
    crop = recipe["data"]["image_transform"]
    assert (crop["type"], crop["scale"], crop["size"]) == (
        "random_resized_crop",
        [0.9, 1.0],
        model["image"]["image_size"],
    )
    clamp = recipe["callbacks"].get("clamp", {})
    assert (clamp.get("lowest"), clamp.get("highest")) == ((None, None) if large else (0.0, math.log(100)))
    frozen = recipe["optim"]["groups"]["frozen"]
    assert (frozen, model["logit_scale"]["initial"]) == ((["logit_scale.weight"], 100.0) if large else ([], 100 / 7))


@pytest.mark.parametrize("name", PUBLISHED)
def test_groups_and_schedule_fit_the_model(name: str) -> None:
    recipe = resolved(name)
    model, _ = deferred_model(lambda: build_model({**recipe["model"], "processor": None}), draw=False)
    rules = read_rules(recipe["optim"]["groups"])
    parameters = dict(model.named_parameters())
    rules.freeze(parameters)
    groups = rules.groups(parameters, recipe["optim"]["lr"], recipe["optim"]["weight_decay"])
    rate = {name: group["lr"] for group in groups for name in group["names"]}
    assert set(rate) == {name for name, parameter in parameters.items() if parameter.requires_grad}
    image, text = (recipe["optim"]["groups"]["towers"][tower] for tower in ("image", "text"))
    depth = recipe["model"]["image"]["blocks"]["depth"]
    assert rate["image_projection.weight"] == image["lr"]
    assert rate["image.patches.weight"] == pytest.approx(image["lr"] * image["layer_decay"]["rate"] ** (depth + 1))
    assert rate[f"image.blocks.layers.{depth - 1}.norm_1.weight"] == pytest.approx(
        image["lr"] * image["layer_decay"]["rate"]
    )
    assert rate["text_projection.weight"] == text["lr"]
    undecayed = {name for group in groups if group["weight_decay"] == 0 for name in group["names"]}
    for free in ("image.positions.weight", "image.prefix.weight", "text.positions"):
        assert free in undecayed
    if recipe["optim"]["weight_decay"]:
        assert not undecayed & {"text.token_embedding.weight", "text_projection.weight", "image_projection.weight"}
    schedule = build(recipe["schedule"])
    steps = recipe["trainer"]["max_steps"]
    warmup = warmup_steps(schedule.warmup, steps)
    assert schedule(warmup, steps) == 1.0
    assert 0 < schedule(steps - 1, steps) < 1e-4


def test_nobody_starts_from_random_towers_unasked() -> None:
    config = compose("eva_clip/l14", ["data.train.sources.laion.sources=x", "data.train.sources.coyo.sources=x"])
    with pytest.raises(MissingMandatoryValue, match=r"initial_weights.image"):
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
