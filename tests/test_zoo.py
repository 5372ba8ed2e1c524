"""One declaration per variant serves Python, notebook and command line."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

import multimodal_zoo as zoo
from config_keys import unread
from multimodal_zoo.catalogue import chosen, list_group
from multimodal_zoo.checkpoints.writing import write_safetensors
from multimodal_zoo.commands.stages import compose_stages
from multimodal_zoo.config import compose_whole


def test_patterns_list_variants_and_recipes_in_natural_order() -> None:
    assert zoo.list_models("clip_vit_b??") == ["clip_vit_b16", "clip_vit_b32"]
    assert "quickstart" in zoo.list_recipes()
    assert zoo.list_models("no_such*") == []


@pytest.mark.parametrize("name", list_group("model"))
def test_every_variant_builds_on_meta_with_the_parameters_its_card_gives(name) -> None:
    model = zoo.create(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == model.card["parameters"]
    assert model.weights == "random (seed 0)"
    assert model.variant == name
    for key in ("system", "summary", "paper", "licence"):
        assert model.card.get(key), f"{name}: card.{key} is missing"


def test_create_takes_the_overrides_of_the_command_line() -> None:
    model = zoo.create("clip_tiny", overrides=["model.text.blocks.depth=1"], embed_dim=24).eval()
    assert model.encode_image(torch.zeros(2, 3, 48, 48)).shape == (2, 24)
    assert len(model.text.blocks.layers) == 1
    swapped = zoo.create("clip_tiny", overrides=["encoder@model.image=clip_vit_tiny"])
    assert swapped.encode_image(torch.zeros(2, 3, 64, 64)).shape == (2, 256)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = zoo.create("clip_tiny", seed=3), zoo.create("clip_tiny", seed=3)
    assert torch.rand(1) == expected
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_errors_name_the_nearest() -> None:
    with pytest.raises(KeyError, match="closest: clip_vit_b32"):
        zoo.create("clip_vit_b23")
    for override, expected in (
        ("model.text.blocks.depht=2", "model.text.blocks.depht: no key named 'depht'; closest: depth"),
        ("encoder@model.image=residual_tinny", "encoder: no option named 'residual_tinny'; closest: residual_tiny"),
        ("encoderr@model.image=residual_tiny", "encoderr@model.image: no group named 'encoderr'; closest: encoder"),
    ):
        with pytest.raises(KeyError, match=expected):
            zoo.create("clip_tiny", overrides=[override])
    with pytest.raises(KeyError, match=r"model.embed_dimm: no key named 'embed_dimm'; closest: embed_dim"):
        zoo.create("clip_tiny", embed_dimm=3)
    with pytest.raises(ValueError, match="no published weights"):
        zoo.create("clip_tiny", pretrained="published")


def test_published_weights_are_read_in_the_naming_that_the_card_gives(tmp_path, monkeypatch) -> None:
    from multimodal_zoo.checkpoints import store
    from multimodal_zoo.checkpoints.load import CheckpointMismatch

    torch.save({"visual.proj": torch.zeros(1, 1)}, tmp_path / "weights.bin")  # a name of OpenAI's
    monkeypatch.setattr(store, "resolve", lambda path: tmp_path / "weights.bin")
    for naming, expected, message in (
        ("openai_clip", CheckpointMismatch, r"image_projection.weight \[1, 1\]"),
        ("hf_clip", CheckpointMismatch, r"no place in the model\).*visual\.proj"),
        ("hf_clp", KeyError, "closest: hf_clip"),
    ):
        entry = f"model.card.weights.published=[{{hub: a/b, file: weights.bin, naming: {naming}}}]"
        with pytest.raises(expected, match=re.compile(message, re.DOTALL)):
            zoo.create("clip_vit_b32", pretrained="published", overrides=[entry])


def test_published_weights_hash_to_what_the_card_says(tmp_path, monkeypatch) -> None:
    from multimodal_zoo.checkpoints import files, store
    from multimodal_zoo.checkpoints.errors import CorruptCheckpoint

    write_safetensors(tmp_path / "weights.safetensors", zoo.create("clip_tiny").state_dict())
    for module in (store, files):
        monkeypatch.setattr(module, "resolve", lambda path: tmp_path / "weights.safetensors")
    known = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    word = "+model.card.weights={{published: [{{hub: a/b, file: weights.safetensors, sha256: '{}'}}]}}"
    zoo.create("clip_tiny", pretrained="published", overrides=[word.format(known)])
    for quantize in (None, "int8"):
        with pytest.raises(CorruptCheckpoint, match="the card says 0000"):
            zoo.create("clip_tiny", pretrained="published", quantize=quantize, overrides=[word.format("0" * 64)])


def test_each_part_of_published_weights_is_read_as_the_card_says(tmp_path, monkeypatch) -> None:
    from multimodal_zoo import zoo as module
    from multimodal_zoo.checkpoints.errors import CorruptCheckpoint

    whole = zoo.create("clip_tiny").state_dict()
    entries = []
    for part in ("image", "text"):
        file = tmp_path / f"{part}.safetensors"
        write_safetensors(file, {name: tensor for name, tensor in whole.items() if name.startswith(f"{part}.")})
        entries.append({"part": part, "hub": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()})
    monkeypatch.setattr(module, "_place", lambda entry: str(tmp_path / entry["hub"]))
    config = dict(module.declaration("clip_tiny"))
    config["card"] = {"weights": {"published": entries}}
    assert set(module._opened(config, "published")[0].parts) == {"image", "text"}
    entries[1]["sha256"] = "0" * 64
    with pytest.raises(CorruptCheckpoint, match=r"text\.safetensors: sha256 is"):
        module._opened(config, "published")
    entries[1] |= {"naming": "hf_clp"}
    del entries[1]["sha256"]
    with pytest.raises(KeyError, match="closest: hf_clip"):
        module._opened(config, "published")


def test_names_are_chosen_by_patterns() -> None:
    names = ["b1", "a", "b2"]
    assert chosen(names, None, "evaluation", "only") == names
    assert chosen(names, ["b*", "a"], "evaluation", "only") == names
    assert chosen(names, ["b?"], "evaluation", "only") == ["b1", "b2"]
    with pytest.raises(KeyError, match="only: no evaluation named 'c'; known: b1, a, b2"):
        chosen(names, ["c"], "evaluation", "only")
    with pytest.raises(KeyError, match="only: no evaluation named 'c'; there is none"):
        chosen([], ["c"], "evaluation", "only")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_laid_to_no_part() -> None:
    with pytest.raises((RuntimeError, AssertionError), match=r"NVIDIA|CUDA") as caught:
        zoo.create("clip_tiny", device="cuda")
    assert "cannot be built" not in str(caught.value)


def test_a_folder_of_another_version_says_what_to_change(tmp_path) -> None:
    from multimodal_zoo.checkpoints.errors import CorruptCheckpoint
    from multimodal_zoo.checkpoints.store import save_model

    file = save_model(zoo.create("eve_tiny"), tmp_path / "saved") / "config.yaml"
    file.write_text(file.read_text().replace("    texts:", "    tokenizer:"))
    said = r"model\.processor\.tokenizer: .* it takes images, texts.*; download it again, correct its config\.yaml if"
    with pytest.raises(CorruptCheckpoint, match=said):
        zoo.from_pretrained(tmp_path / "saved")


def test_a_card_prints_and_renders() -> None:
    card = zoo.describe("clip_vit_b32")
    text = dict(card.rows())
    assert text["parameters"] == "151,277,313"
    assert "0.605 GB float32" in text["memory of the weights"]
    assert "<table>" in card._repr_html_()
    assert [title for title in text if title.endswith((" transform", " tokenizer"))] == [
        "texts tokenizer",
        "images transform",
    ]
    assert {"view", "history", "checks"} <= dict(zoo.describe("fast_bev_m0").rows()).keys(), "no tokenizers"


def test_from_pretrained_reads_back_what_save_model_wrote(tmp_path) -> None:
    from multimodal_zoo.checkpoints.store import save_model

    model = zoo.create("clip_tiny", overrides=["model.text.blocks.depth=1"])
    save_model(model, tmp_path / "model")
    again = zoo.from_pretrained(tmp_path / "model")
    images = torch.rand(2, 3, 48, 48)
    model.eval(), again.eval()
    assert torch.equal(model.encode_image(images), again.encode_image(images))
    assert again.weights == "random (seed 0), saved", "random weights stay visible after a round trip"
    model.weights = "trained"
    save_model(model, tmp_path / "trained")
    trained = zoo.from_pretrained(tmp_path / "trained")
    assert trained.weights == str(tmp_path / "trained")
    assert f"weights: {tmp_path}" in repr(trained)
    assert torch.equal(again.processor.texts(["a cat"]), model.processor.texts(["a cat"]))


def given(places: DictConfig) -> dict[str, str | None]:
    """Places to start from; None for those that only the user knows."""
    return {str(name): None if OmegaConf.is_missing(places, name) else places[name] for name in places}


def plain(config: DictConfig) -> Any:
    """As dicts and lists, of which interpolations stay what is written."""
    return OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (None, ["+model=emu_tiny", "model.decoder.blocks.depth=3"]),
        ("quickstart", ["optim.lr=3", "callbacks.samples=null"]),
        ("fast_bev/synthetic", ["+note=1", "~schedule.warmup"]),
        ("quickstart", ["launcher=local", "hydra.launcher.timeout_min=7"]),
        ("base/eval", ["source=somewhere", "benchmark=emoji"]),
    ],
)
def test_hydras_own_node_changes_nothing_else(recipe, words) -> None:
    """What says nothing of it is composed without it."""
    whole = compose_whole(recipe, words)
    with open_dict(whole):
        del whole["hydra"]
    found = zoo.compose(recipe, words)
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(whole)
    assert OmegaConf.is_struct(found)


@pytest.mark.parametrize("recipe", zoo.list_recipes())
def test_every_recipe_composes_completely(recipe) -> None:
    config = zoo.compose(recipe)
    assert not list(unread(plain(config)))
    if "stages" in config:
        for stage in compose_stages(config):
            assert not list(unread(plain(stage.config)))
        return
    # pairs that were never released and files to start from: only the user knows where theirs lie
    theirs = ("data.train.sources", "data.train.readers", "data.train.folder", "data.train.table", "initial_weights")
    theirs += ("teacher.weights", "objective.perceptual.weights")
    if isinstance(config.initial_weights, DictConfig):  # data may name the same file again
        config.initial_weights = {name: place or "given" for name, place in given(config.initial_weights).items()}
    strange = [key for key in OmegaConf.missing_keys(config) if not key.startswith(theirs)]
    assert not strange
    for node in ("model", "data", "objective", "optim", "schedule", "trainer", "evaluation", "run"):
        assert node in config, node


def test_two_settings_in_one_process_do_not_influence_each_other() -> None:
    images = torch.rand(1, 3, 48, 48)
    alone = zoo.create("clip_tiny").eval()
    expected = alone.encode_image(images)
    zoo.create("clip_tiny", overrides=["model.text.blocks.depth=1"]).eval().encode_image(images)
    assert torch.equal(alone.encode_image(images), expected)
