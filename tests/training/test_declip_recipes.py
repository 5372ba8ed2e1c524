"""The published recipes of CLIP-benchmark and DeCLIP: what they say, and two steps of each on narrow towers."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

from multimodal_zoo.config import compose
from multimodal_zoo.objectives.batch import MultiViewBatch
from multimodal_zoo.registry import build
from multimodal_zoo.training.deferred import deferred_model
from multimodal_zoo.training.groups import read_rules
from multimodal_zoo.zoo import build_model

METHODS = ("clip", "slip", "filip", "declip", "defilip")
DECLIP = {"multi_view": 0.4, "nearest_neighbour": 0.2, "simsiam": 0.2, "masked_words": 0.2}
#: The released configurations: peak rate, weight decay, embedding of ResNet-50 and ViT-B/32, weights of the losses.
PUBLISHED = {
    "clip": (1e-3, 0.1, 1024, 512, {"image_text": 1.0}),
    "slip": (5e-4, 0.5, 1024, 512, {"image_text": 1.0, "simclr": 1.0}),
    "filip": (5e-4, 0.5, 1024, 768, {"token_wise": 1.0}),
    "declip": (1e-3, 0.1, 1024, 512, DECLIP),
    "defilip": (1e-3, 0.1, 1024, 512, {**DECLIP, "token_wise": 0.2}),
}
NAMES = [f"clip_benchmark/{method}_{tower}" for method in METHODS for tower in ("vit_b32", "r50")]
LARGE = ["declip/88m_vit_b32", "declip/88m_r50"]
#: A narrow model of each tower: 224 pixels still, so that the last map is 7 wide.
NARROW = {
    "vit_b32": ["image.width=16", "image.blocks.depth=1", "image.blocks.block.attention.qkv.heads=2",
                "image.blocks.block.attention.qkv.head_dim=8", "image.blocks.block.mlp.hidden=32", "embed_dim=12"],
    "r50": ["image.stem_width=4", "image.depths=[1,1,1,1]", "embed_dim=12"],
}  # fmt: skip
TEXT = ["text.width=16", "text.blocks.depth=1", "text.blocks.block.attention.qkv.heads=2", "text.vocab_size=64",
        "text.blocks.block.attention.qkv.head_dim=8", "text.blocks.block.mlp.hidden=32"]  # fmt: skip


@cache
def resolved(name: str, *overrides: str) -> dict[str, Any]:
    """A recipe whose lists are given."""
    config = compose(name, list(overrides))
    readers = config.data.train.readers.values() if "readers" in config.data.train else [config.data.train]
    for reader in readers:
        reader.table = reader.folder = "x"
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_was_published(name: str) -> None:
    recipe = resolved(name)
    method, _, tower = name.removeprefix("clip_benchmark/").partition("_")
    rate, decay, r50, vit, weights = PUBLISHED[method]
    optim, trainer, schedule = recipe["optim"], recipe["trainer"], recipe["schedule"]
    assert (optim["lr"], optim["weight_decay"], optim["betas"], optim["eps"]) == (rate, decay, [0.9, 0.98], 1e-8)
    assert recipe["model"]["embed_dim"] == (vit if tower == "vit_b32" else r50)
    assert recipe["objective"]["weights"] == weights
    assert schedule["start"] * rate == pytest.approx(1e-4)
    assert (schedule["warmup"], schedule["final"], trainer["max_steps"]) == (2500, 0.0, 128_001)
    assert recipe["data"]["batch_size"] * trainer["num_nodes"] * 8 == 4096
    assert (trainer["precision"], trainer["gradient_clip_val"]) == ("32-true", None)
    clamp = recipe["callbacks"]["clamp"]
    assert (clamp["lowest"], clamp["highest"]) == (3.0, 6.0)
    clamped = {"clip": 1, "slip": 1, "declip": 1, "filip": 2, "defilip": 3}[method]
    names = ["logit_scale.weight", "heads.token_wise.logit_scale.weight"]
    assert clamp["name"] == [one for place, one in enumerate(names) if clamped & (place + 1)]
    assert recipe["callbacks"]["ema"] is None
    # SLIP's and FILIP's scales are not cut in the forward pass
    limit = recipe["model"]["logit_scale"]["maximum"]
    assert limit == (float("inf") if method in ("slip", "filip") else 100.0)


def test_the_88m_recipes_say_what_was_published() -> None:
    vit, r50 = (resolved(name) for name in LARGE)
    for recipe in (vit, r50):
        optim = recipe["optim"]
        assert (optim["_target_"], optim["lr"], optim["momentum"], optim["nesterov"]) == (
            "torch.optim.SGD",
            0.2,
            0.9,
            True,
        )
        assert recipe["schedule"]["start"] * 0.2 == pytest.approx(1e-3)
        assert (recipe["callbacks"]["clamp"]["lowest"], recipe["callbacks"]["clamp"]["highest"]) == (3.0, None)
        assert list(recipe["data"]["train"]["readers"]) == ["yfcc15m", "cc3m", "cc12m", "web"]
    assert (vit["model"]["embed_dim"], vit["optim"]["weight_decay"], vit["data"]["batch_size"]) == (3072, 0.0, 64)
    assert (vit["schedule"]["warmup"], vit["trainer"]["max_steps"]) == (5000, 300_001)
    assert vit["objective"]["weights"] == {**DECLIP, "multi_view": 0.6}
    assert (r50["schedule"]["warmup"], r50["trainer"]["max_steps"], r50["optim"]["weight_decay"]) == (
        2500,
        46_001,
        1e-4,
    )
    assert r50["objective"]["weights"] == DECLIP


@pytest.mark.parametrize("name", [*NAMES, *LARGE])
def test_groups_fit_the_full_model(name: str) -> None:
    recipe = deepcopy(resolved(name))
    model, _ = deferred_model(lambda: build_model({**recipe["model"], "processor": None}), draw=False)
    rules, parameters = read_rules(recipe["optim"]["groups"]), dict(model.named_parameters())
    rules.freeze(parameters)
    groups = rules.groups(parameters, recipe["optim"]["lr"], 0.1)
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    flat = {name for name in decay if parameters[name].ndim <= 1}
    assert {name for name, value in decay.items() if value} == {
        name for name in decay if name not in flat or name.endswith("attention.qkv.bias")
    }
    if queue := recipe["objective"]["parts"].get("nearest_neighbour", {}).get("queue"):
        assert queue["size"] == 65536
        queue["size"] = 4
    build(recipe["objective"], path="objective").check(model)


@pytest.mark.parametrize("name", ["yfcc15m_v1", "yfcc15m_v2", "cc3m_cc12m", "laion", "open_29m", "declip_88m"])
@pytest.mark.parametrize("recipe", ["clip_benchmark/defilip_r50", "declip/88m_vit_b32"])
def test_every_recipe_takes_every_data_set(recipe: str, name: str) -> None:
    config = compose(recipe, [f"reader@data.train={name}"])
    with pytest.raises(MissingMandatoryValue):  # nobody trains on nothing unasked
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    expected = {"laion": "webdataset_pairs", "yfcc15m_v1": "line_pairs", "yfcc15m_v2": "line_pairs"}
    assert config.data.train.type == expected.get(name, "joined_pairs")


def batches(size: int = 4) -> list[MultiViewBatch]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(2):
        images = {name: torch.randn(size, 3, 224, 224, generator=generator) for name in ("plain", "first", "second")}
        words = torch.randint(1, 61, (size, 6), generator=generator)
        words[:, 0], words[:, -1] = 62, 63
        masked, labels = words.clone(), torch.full_like(words, -100)
        masked[:, 2], labels[:, 2] = 61, words[:, 2]
        texts = {"plain": words, "masked": masked, "augmented": words.flip(1).roll(-1, 1)}
        made.append(MultiViewBatch(images, texts, {"masked": labels}, [str(row) for row in range(size)]))
    return made


def narrow(name: str) -> dict[str, Any]:
    """A recipe with narrow towers."""
    tower = "r50" if name.endswith("r50") else "vit_b32"
    overrides = [f"model.{one}" for one in (*NARROW[tower], *TEXT)]
    model = compose(name).model
    if tower == "r50" and "slip" in name:
        overrides += ["model.image.width=128", "model.image.pool.width=128", "model.image.pool.heads=4"]
    elif tower == "r50":
        overrides += ["model.image.width=12", "model.image.pool.attention.width=128", "model.image.pool.mean.width=128"]
        overrides += ["model.image.pool.attention.heads=4"]
    if "token_wise" in model.get("heads", {}) and tower == "r50":
        overrides += ["model.heads.token_wise.image_width=128"]
    if "masked_words" in model.get("heads", {}) and "simsiam" in model.heads:
        overrides += ["objective.parts.nearest_neighbour.queue.size=16"]
    return resolved(name, *overrides)


@pytest.mark.parametrize("name", [*NAMES, *LARGE])
def test_two_steps(fit, name: str, caplog: pytest.LogCaptureFixture) -> None:
    recipe = narrow(name)
    nodes = {key: recipe[key] for key in ("objective", "optim")}
    nodes["schedule"] = {**recipe["schedule"], "warmup": 1}
    clamp = {"clamp": recipe["callbacks"]["clamp"]}
    torch.manual_seed(0)
    model = build({k: v for k, v in recipe["model"].items() if k not in ("processor", "card")}, path="model")
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    trainer = {"max_steps": 2, "gradient_clip_val": None}
    module, _ = fit(model=model, batches=batches(), callbacks=clamp, trainer=trainer, **nodes)
    assert not [record for record in caplog.records if "no gradient reaches" in record.message]
    after = module.model.state_dict()
    assert all(torch.isfinite(tensor).all() for tensor in after.values())
    for key in clamp["clamp"]["name"]:
        assert float(after[key]) >= 3.0
    if "vit" in name:
        assert torch.equal(before["image.patches.weight"], after["image.patches.weight"])  # frozen, not decayed
    assert not torch.equal(before["text.token_embedding.weight"], after["text.token_embedding.weight"])
