"""What only training needs never reaches a model for inference, and training keeps it or begins it anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from multimodal_zoo.checkpoints import files
from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.store import load_weights, recognise, save_model
from multimodal_zoo.checkpoints.training_only import absent_parts, for_inference, lacking, training_parts, without
from multimodal_zoo.training.initial import initial_model
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

ALIGNER = {"type": "patch_aligning", "width": 128, "teacher_width": 32, "depth": 4, "every": 4, "heads": 8}
SHARDED = {"strategy": {"_target_": "multimodal_zoo.training.sharding.FullySharded"}}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return declaration("eve_tiny", aligner=ALIGNER)


@pytest.fixture(scope="module")
def trained(config: dict[str, Any]) -> Any:
    model = build_model(config, seed=7)
    torch.manual_seed(7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def places(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights by this library, as the publishers' training saves them, and as a checkpoint of training."""
    place = tmp_path_factory.mktemp("aligned")
    found = {
        "ours": save_model(trained, place / "ours"),
        "published": write_published(trained, place / "published", "eve_training"),
    }
    state = {f"model.{name}": tensor for name, tensor in trained.state_dict().items()}
    recipe = {"pytorch-lightning_version": "2.6", "hyper_parameters": {"config": {"model": trained.config}}}
    torch.save({**recipe, "state_dict": state}, place / "last.ckpt")
    return {**found, "run": place / "last.ckpt"}


def same(found: Any, wanted: Any, leave_out: str = "aligner.") -> None:
    state = {name: tensor for name, tensor in wanted.state_dict().items() if not name.startswith(leave_out)}
    mine = {name: tensor for name, tensor in found.state_dict().items() if not name.startswith(leave_out)}
    assert mine.keys() == state.keys()
    assert all(torch.equal(mine[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("kind", ["ours", "published", "run"])
def test_inference_comes_without_the_aligning_layer(kind: str, trained: Any, places: dict[str, Path]) -> None:
    for model in (from_pretrained(places[kind]), create("eve_tiny", pretrained=places[kind])):
        assert model.aligner is None
        assert model.config["aligner"] is None
        assert not any(name.startswith("aligner") for name in model.state_dict())
        same(model, trained)
    again = from_pretrained(save_model(model, places[kind].parent / f"again-{kind}"))
    same(again, trained)


def test_its_tensors_are_not_read(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is never touched costs no memory in a mapped file: nothing of it reaches the model."""
    handed: list[str] = []
    put = torch.nn.Module.load_state_dict

    def noted(self: Any, state: Any, *arguments: Any, **options: Any) -> Any:
        handed.extend(state)
        return put(self, state, *arguments, **options)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", noted)
    from_pretrained(places["ours"])
    assert "decoder.norm.weight" in handed
    assert not any(name.startswith("aligner") for name in handed)
    assert any(name.startswith("aligner") for name in files.manifest(places["ours"] / "model.safetensors"))


def test_a_configuration_that_has_it_keeps_it(trained: Any, config: dict[str, Any], places: dict[str, Path]) -> None:
    for place in places.values():
        same(from_pretrained(place, config=config), trained, leave_out="nothing")
    same(create("eve_tiny", pretrained=places["ours"], aligner=ALIGNER), trained, leave_out="nothing")


@pytest.mark.parametrize("trainer", [None, SHARDED])
@pytest.mark.parametrize("kind", ["ours", "published", "run"])
def test_training_goes_on_with_it(
    kind: str, trainer: Any, trained: Any, config: dict[str, Any], places: dict[str, Path]
) -> None:
    said: list[str] = []
    recipe = {"model": config, "seed": 3, "trainer": trainer, "initial_weights": str(places[kind])}
    model, start = initial_model(recipe, say=said.append)
    same(model, trained, leave_out="nothing")
    assert not said
    assert (start is None) == (trainer is None)


@pytest.mark.parametrize("trainer", [None, SHARDED])
@pytest.mark.parametrize("naming", ["ours", "eve"])
def test_training_begins_it_anew_where_the_file_has_none(
    naming: str, trainer: Any, config: dict[str, Any], tmp_path: Path
) -> None:
    plain = build_model(declaration("eve_tiny"), seed=9)
    place = write_published(plain, tmp_path / "plain", naming)
    said: list[str] = []
    recipe = {"model": config, "seed": 3, "trainer": trainer, "initial_weights": str(place)}
    model, start = initial_model(recipe, say=said.append)
    assert said == [f"initial_weights.model: {place} has no aligner; it begins anew (seed 3)"]
    same(model, plain)
    fresh = build_model(config, seed=3)
    for name, tensor in fresh.state_dict().items():
        if name.startswith("aligner."):
            found = model.state_dict()[name] if start is None else start(name)
            assert torch.equal(found, tensor), name
    assert model.weights == str(place)


def test_nothing_else_may_be_absent(config: dict[str, Any], trained: Any, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in trained.state_dict().items() if name != "aligner.input_layer.bias"}
    files_of = tmp_path / "half.pt"
    torch.save(state, files_of)
    with pytest.raises(CheckpointMismatch, match=r"missing .*: 1\n  aligner\.input_layer\.bias"):
        initial_model({"model": config, "seed": 0, "initial_weights": str(files_of)})
    torch.save({**trained.state_dict(), "other.weight": torch.ones(1)}, files_of)
    with pytest.raises(CheckpointMismatch, match=r"unexpected .*: 1\n  other\.weight"):
        load_weights(create("eve_tiny"), files_of)


def test_which_parts_these_are(config: dict[str, Any], trained: Any, places: dict[str, Path]) -> None:
    assert training_parts(config) == ["aligner"]
    assert training_parts(declaration("eve_tiny")) == training_parts(declaration("clip_tiny")) == []
    assert for_inference(config) == {**config, "aligner": None}
    assert for_inference(declaration("clip_tiny")) == declaration("clip_tiny")
    assert absent_parts(trained) == []
    assert absent_parts(create("eve_tiny", device="meta")) == ["aligner"]
    assert lacking(recognise(places["published"]), config) == []
    aligner = trained.aligner
    with without(trained, ["aligner"]):
        assert trained.aligner is None
    assert trained.aligner is aligner
