"""Where training starts from: whole files, towers from files of their own, and the same when it is sharded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from forked import forked
from multimodal_zoo import zoo
from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.checkpoints.tables import eva_clip, eva_mim
from multimodal_zoo.training.initial import initial_model, read_places
from multimodal_zoo.training.sharding import full_state, is_sharded, settle, shard

SMALL = ["model.image.blocks.depth=2", "model.text.blocks.depth=1"]
FSDP = {"strategy": {"_target_": "multimodal_zoo.training.sharding.FullySharded"}}


@cache
def node() -> dict[str, Any]:
    return zoo.declaration("eva_clip_tiny", SMALL)


@cache
def random_state() -> dict[str, Tensor]:
    return zoo.build_model(node(), seed=0).state_dict()


def recipe(start: Any, **changes: Any) -> dict[str, Any]:
    return {"model": node(), "seed": 0, "initial_weights": start, "trainer": {"strategy": "auto"}, **changes}


@cache
def trained(seed: int, *overrides: str) -> nn.Module:
    model = zoo.build_model(zoo.declaration("eva_clip_tiny", [*SMALL, *overrides]), seed=seed)
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases differ from their first values too
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))
    return model


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A trained model in the published naming, in half precision, and another as a folder of ours."""
    published = eva_clip.ORIGINAL.save(trained(1).state_dict())
    torch.save({name: tensor.half() for name, tensor in published.items()}, tmp_path / "clip.pt")
    save_model(trained(2), tmp_path / "ours")
    return {"image": str(tmp_path / "clip.pt"), "text": str(tmp_path / "ours")}


def expected(name: str) -> Tensor:
    """The value after starting from `files`."""
    part = name.split(".")[0]
    if part == "image":
        return trained(1).state_dict()[name].half().float()
    return (trained(2).state_dict() if part == "text" else random_state())[name]


def test_towers_from_two_files(files: dict[str, str]) -> None:
    said: list[str] = []
    model, start = initial_model(recipe(files), say=said.append)
    assert start is None
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected(name)), name
    image, text, random = said
    assert image.startswith("initial_weights.image: 48 tensors from ")
    assert "left out: " in image
    assert "text.transformer.resblocks.0.attn.in_proj_weight" in image
    assert "logit_scale" in image
    assert "left out: 52" in text
    lines = (
        "random: 4\n  image_projection.weight\n  image_projection.bias\n  text_projection.weight\n  logit_scale.weight"
    )
    assert sorted(random.splitlines()) == sorted(lines.splitlines())


def test_a_masked_students_tower_gets_identity_norms(tmp_path: Path) -> None:
    student = zoo.build_model(zoo.declaration("eva_mim_tiny", ["model.image.blocks.depth=2"]), seed=3)
    save_model(student, tmp_path / "ours")
    torch.save(eva_mim.STUDENT.save(student.state_dict()), tmp_path / "published.pt")
    for place in ("ours", "published.pt"):
        said: list[str] = []
        model, _ = initial_model(recipe({"image": str(tmp_path / place)}), say=said.append)
        tower = dict(model.image.named_parameters())
        for name, tensor in student.image.named_parameters():
            assert torch.equal(tower.pop(name), tensor), name
        assert {name.split(".", 3)[3] for name in tower} == {"attention.inner_norm.weight", "attention.inner_norm.bias"}
        assert all(bool((tensor == float(name.endswith("weight"))).all()) for name, tensor in tower.items())
        assert "mask_token" in said[0]


def test_a_tower_of_another_resolution(tmp_path: Path) -> None:
    save_model(trained(4, "model.image.image_size=64"), tmp_path / "larger")
    start = {"image": str(tmp_path / "larger")}
    with pytest.raises(CheckpointMismatch, match=r"image\.positions\.weight"):
        initial_model(recipe(start))
    model, _ = initial_model(recipe({**start, "resize": True}))
    assert model.image.positions.weight.shape == (37, 128)


def test_a_whole_model_and_one_tower_of_another(files: dict[str, str]) -> None:
    model, _ = initial_model(recipe({"model": files["text"], "image": files["image"]}))
    assert torch.equal(model.logit_scale.weight, trained(2).logit_scale.weight)
    assert torch.equal(model.image.pool.norm.weight, expected("image.pool.norm.weight"))


def test_keys_of_initial_weights() -> None:
    assert read_places(None) == {}
    assert read_places("a") == {"model": "a"}
    assert read_places({"image": "a", "text": None}) == {"image": "a"}
    with pytest.raises(ValueError, match=r"initial_weights\.visual: no such key; it takes a place, or model, image"):
        read_places({"visual": "a"})


def test_a_sharded_start_holds_no_matrix_in_memory(files: dict[str, str]) -> None:
    model, start = initial_model(recipe(files, trainer=FSDP))
    assert start is not None
    random = {name for name, tensor in model.named_parameters() if tensor.is_meta}
    assert random == {"image_projection.weight", "text_projection.weight"}
    assert model.image.patches.weight.dtype == torch.float16  # mapped from the file as it is
    resumed, _ = initial_model(recipe(files, trainer=FSDP), resumed=True)
    assert all(tensor.is_meta for tensor in resumed.parameters() if tensor.ndim > 1)


def sharded_starts(recipes: dict[str, Any]) -> dict[str, dict[str, torch.Tensor]]:
    """The whole weights that sharded models start from, by recipe, on the first process."""
    mesh, found = init_device_mesh("cpu", (2,)), {}
    for name, given in recipes.items():
        model, start = initial_model(given, say=lambda text: None)
        assert start is not None
        shard(model, mesh)
        settle(model, start, torch.device("cpu"))
        assert is_sharded(model)
        assert not any(tensor.is_meta for tensor in model.parameters())
        found[name] = dict(full_state(model, keep=mesh.get_rank() == 0))
    return found


@pytest.mark.multiprocess
def test_two_ranks_start_where_one_process_does(files: dict[str, str]) -> None:
    starts: dict[str, Any] = {"random": None, "whole": files["text"], "towers": files}
    recipes = {name: recipe(start, trainer=FSDP) for name, start in starts.items()}
    ends, _ = forked(2, sharded_starts, recipes)
    for name, start in starts.items():
        found = ends[name]
        model, _ = initial_model(recipe(start))
        for key, tensor in model.state_dict().items():
            assert torch.equal(found[key], tensor), (name, key)
            assert found[key].dtype == torch.float32
