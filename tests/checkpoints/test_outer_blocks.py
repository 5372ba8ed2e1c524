"""Parts from files that are deeper than the model, and parts that lie inside others."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.parts import place_of, receiver
from multimodal_zoo.checkpoints.store import load_part, save_model
from multimodal_zoo.training.initial import initial_model


def emu3(depth: int) -> Any:
    """A small decoder (and what an Emu3 has beside it)."""
    return zoo.create("emu3_tiny", overrides=[f"model.decoder.blocks.depth={depth}"], seed=depth)


@pytest.mark.parametrize(("depth", "kept"), [(4, [0, 1, 5, 6]), (3, [0, 1, 6]), (1, [0]), (7, list(range(7)))])
def test_half_of_the_blocks_come_from_each_end(tmp_path, depth: int, kept: list[int]) -> None:
    deep, model = emu3(7), emu3(depth)
    save_model(deep, tmp_path / "deep")
    found = load_part(model, "decoder", tmp_path / "deep", outer_blocks=True)
    for place, number in enumerate(kept):
        for (name, ours), theirs in zip(
            model.decoder.blocks.layers[place].named_parameters(),
            deep.decoder.blocks.layers[number].parameters(),
            strict=True,
        ):
            assert torch.equal(ours, theirs), (place, name)
    assert torch.equal(model.decoder.token_embedding.weight, deep.decoder.token_embedding.weight)
    between = {name.split(".")[3] for name in found.left_out if name.startswith("decoder.blocks.layers.")}
    assert between == {str(number) for number in range(7)} - {str(number) for number in kept}
    assert found.exact
    assert len(found.matched) == len(model.decoder.state_dict())


def test_a_deeper_file_is_refused_without_being_asked_for(tmp_path) -> None:
    save_model(emu3(3), tmp_path / "deep")
    with pytest.raises(CheckpointMismatch, match="unexpected"):
        load_part(emu3(2), "decoder", tmp_path / "deep")


def test_a_shallower_file_is_refused(tmp_path) -> None:
    save_model(emu3(2), tmp_path / "flat")
    with pytest.raises(CheckpointMismatch, match="missing"):
        load_part(emu3(3), "decoder", tmp_path / "flat", outer_blocks=True)


def test_an_image_encoder_is_found_inside_an_embedding_layer(tmp_path) -> None:
    clip = zoo.create("clip_tiny", seed=1)
    save_model(clip, tmp_path / "clip")
    words = ["model.decoder.blocks.depth=1", "model.decoder.vocab_size=64"]
    config = zoo.create("eve_smollm2_encoder", overrides=words, device="meta").config
    said: list[str] = []
    recipe = {"model": config, "seed": 0, "initial_weights": {"image": str(tmp_path / "clip")}}
    model, _ = initial_model(recipe, say=said.append)
    assert place_of(model, "image") == "vision_embedding.encoder"
    assert place_of(model, "text") is None
    for name, tensor in clip.image.state_dict().items():
        assert torch.equal(model.get_submodule("vision_embedding.encoder").state_dict()[name], tensor), name
    assert "vision_embedding.encoder" not in said[-1]
    assert "vision_embedding.projector" in said[-1]


def test_a_model_without_the_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"part=.image.*decoder"):
        receiver(zoo.create("emu3_tiny", device="meta"), ["image"])
