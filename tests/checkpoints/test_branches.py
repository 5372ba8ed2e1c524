"""A plain decoder's weights become those of both kinds of tokens in decoupled blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from multimodal_zoo.checkpoints.branches import Branched, branches_of
from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import CheckpointMismatch
from multimodal_zoo.checkpoints.store import load_part, save_model
from multimodal_zoo.nn.decoupled import DecoupledBlock
from multimodal_zoo.training.initial import initial_model
from multimodal_zoo.zoo import build_model, declaration, from_pretrained

SHARDED = {"strategy": {"_target_": "multimodal_zoo.training.sharding.FullySharded"}}
IDS = torch.randint(0, 67, (2, 9), generator=torch.Generator().manual_seed(0))
#: A class of transformers and what of its configuration differs.
FAMILIES = {"Llama": {"rms_norm_eps": 1e-6}, "Qwen2": {}, "SmolLM2": {"tie_word_embeddings": True}}


def theirs(family: str, folder: Path) -> Any:
    import transformers

    sizes = {"vocab_size": 67, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    name = "Llama" if family == "SmolLM2" else family
    torch.manual_seed(1)
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**sizes, **FAMILIES[family])
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return model


def node(folder: Path, parts: list[str] | None) -> dict[str, Any]:
    """An EVE around the decoder in a folder, with or without weights of their own for pictures."""
    decoder = {k: v for k, v in from_pretrained(folder).config.items() if k not in ("processor", "card")}
    if parts is not None:
        decoder["blocks"]["block"] = {"type": "decoupled_block", "parts": parts, "block": decoder["blocks"]["block"]}
    kind = "eve_patch_embedding" if parts is None else "eve_direct_embedding"
    return {
        "type": "eve",
        "decoder": decoder,
        "vision_embedding": {"type": kind, "width": 32, "hidden": 8, "patch": 2, "window": 2},
    }


def copied(model: nn.Module) -> bool:
    """Whether every weight for pictures equals the text's and lies elsewhere."""
    blocks = [block for block in model.modules() if isinstance(block, DecoupledBlock)]
    pairs = [
        (own, dict(getattr(block.text, part).named_parameters())[name])
        for block in blocks
        for part, module in block.vision.items()
        for name, own in module.named_parameters()
    ]
    assert pairs
    return all(torch.equal(own, text) and own.data_ptr() != text.data_ptr() for own, text in pairs)


@torch.no_grad()
@pytest.mark.parametrize("parts", [None, ["norm", "attention", "mlp"], ["mlp"]])
@pytest.mark.parametrize("family", FAMILIES)
def test_any_decoder_of_the_family_fits_the_slot(family: str, parts: list[str] | None, tmp_path: Path) -> None:
    reference = theirs(family, tmp_path / "theirs")
    recipe = {"model": node(tmp_path / "theirs", parts), "seed": 0}
    said: list[str] = []
    model, _ = initial_model({**recipe, "initial_weights": {"decoder": tmp_path / "theirs"}}, say=said.append)
    assert "initial_weights.decoder" in said[0]
    assert "decoder." not in said[1]  # nothing of the decoder is random
    expected = reference(IDS).logits
    assert_close(model.decoder.head(model(IDS)), expected, atol=2e-5, rtol=1e-4)
    if parts is not None:
        assert copied(model)
        mixed = model.decoder(model.decoder.embed(IDS), vision=IDS > 30)
        assert_close(model.decoder.head(mixed), expected, atol=2e-5, rtol=1e-4)


@pytest.fixture(scope="module")
def plain() -> Any:
    """EVE v2 in its first stage."""
    config = declaration("eve_v2_tiny")
    config["decoder"]["blocks"]["block"] = config["decoder"]["blocks"]["block"]["block"]
    return build_model(config, seed=5)


@pytest.mark.parametrize("trainer", [None, SHARDED])
@pytest.mark.parametrize("naming", ["ours", "eve_v2_stage0"])
def test_the_second_stage_begins_with_a_copy(naming: str, trainer: Any, plain: Any, tmp_path: Path) -> None:
    place = write_published(plain, tmp_path / "stage0", naming)
    recipe = {"model": declaration("eve_v2_tiny"), "seed": 0, "trainer": trainer}
    said: list[str] = []
    places = {"model": str(place), "copy_vision_branch": True}
    model, _ = initial_model({**recipe, "initial_weights": places}, say=said.append)
    assert said == ["initial_weights.copy_vision_branch: the weights for pictures are a copy of the text's"]
    assert copied(model) or trainer is not None
    state, text = plain.state_dict(), 0
    for name, tensor in model.state_dict().items():
        first = name.replace(".vision.", ".").replace(".text.", ".")
        assert torch.equal(tensor, state[first]), name
        text += ".text." in name
    assert text
    with pytest.raises(CheckpointMismatch, match="copy_vision_branch: true"):
        initial_model({**recipe, "initial_weights": str(place)})


def test_a_copy_that_cannot_be(plain: Any, tmp_path: Path) -> None:
    full = save_model(build_model(declaration("eve_v2_tiny")), tmp_path / "full")
    recipe = {"model": declaration("eve_v2_tiny"), "seed": 0}
    with pytest.raises(ValueError, match="has weights for pictures already; leave the key out"):
        initial_model({**recipe, "initial_weights": {"model": str(full), "copy_vision_branch": True}})
    place = save_model(plain, tmp_path / "plain")
    recipe = {"model": plain.config, "seed": 0}
    with pytest.raises(ValueError, match="no block of the model is a decoupled_block"):
        initial_model({**recipe, "initial_weights": {"model": str(place), "copy_vision_branch": True}})


def test_a_model_on_meta_gets_memory_of_its_own_for_the_copy(plain: Any, tmp_path: Path) -> None:
    place = save_model(plain, tmp_path / "plain")
    for dtype in (None, "auto", "bfloat16"):
        model = build_model(declaration("eve_v2_tiny"), device="meta")
        result = load_part(model, "decoder", place, dtype=dtype)
        assert copied(model)
        assert all(name.startswith("vision_embedding.") for name in result.left_out)
    model = build_model(declaration("eve_v2_tiny"), device="meta")
    load_part(model, "decoder", place, dtype="auto", sharing=True)
    block = model.decoder.blocks.layers[0]
    assert block.vision["mlp"].up.weight.data_ptr() == block.text.mlp.up.weight.data_ptr()


def test_decoupled_decoders_are_taken_as_they_are(tmp_path: Path) -> None:
    full = build_model(declaration("eve_v2_tiny"), seed=8)
    model = build_model(declaration("eve_v2_tiny"))
    load_part(model, "decoder", save_model(full, tmp_path / "full"))
    for name, tensor in model.decoder.state_dict().items():
        assert torch.equal(tensor, full.decoder.state_dict()[name])
    assert not copied(model)
    assert branches_of(model) == {"decoder.blocks.layers.": ["norm_1", "norm_2", "attention", "mlp"]}


def test_copies_through_a_view_are_those_of_the_blocks(plain: Any, tmp_path: Path) -> None:
    """`DecoupledBlock.copy_text_weights`, the other way to the same."""
    model = build_model(declaration("eve_v2_tiny"))
    load_part(model, "decoder", save_model(plain, tmp_path / "plain"))
    other = build_model(declaration("eve_v2_tiny"), seed=2)
    other.load_state_dict(
        {name: tensor for name, tensor in model.state_dict().items() if ".vision." not in name}, strict=False
    )
    for block in other.decoder.blocks.layers:
        block.copy_text_weights()
    for name, tensor in other.decoder.state_dict().items():
        assert torch.equal(tensor, model.decoder.state_dict()[name])


def test_names_of_other_tensors_stay() -> None:
    class Two:
        path, left_out = Path("x"), ("y",)

        def shapes(self) -> dict[str, torch.Tensor]:
            names = ["decoder.blocks.layers.0.mlp.up.weight", "decoder.blocks.layers.0.scale", "decoder.norm.weight"]
            return {name: torch.empty(1, device="meta") for name in names}

        def shards(self, passing: Any = None) -> Any:
            yield {name: torch.ones(1) for name in self.shapes()}

    view = Branched(Two(), {"decoder.blocks.layers.": ["mlp"]})
    names = {f"decoder.blocks.layers.0.{side}.mlp.up.weight" for side in ("text", "vision")}
    names |= {"decoder.blocks.layers.0.text.scale", "decoder.norm.weight"}
    assert view.shapes().keys() == names
    (shard,) = view.shards()
    assert shard.keys() == names
    assert (view.path, view.left_out) == (Path("x"), ("y",))
