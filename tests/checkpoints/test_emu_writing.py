"""Models of Emu and Emu2 under their publishers' names: what is written is read back, or refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import CheckpointError, UnknownCheckpoint
from multimodal_zoo.checkpoints.tables.emu_config import published_node
from multimodal_zoo.checkpoints.tables.emu_write import (
    adapted_node,
    checker_config,
    diffusion_config,
    emu2_config,
    sizes_node,
)
from multimodal_zoo.commands.convert import main as convert
from multimodal_zoo.nn.low_rank import merge_adapters
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

ADAPTER = (
    "+model.decoder.blocks.adapter={type: low_rank, rank: 2, alpha: 2, dropout: 0.0, "
    "layers: [attention.qkv.query, attention.qkv.key, attention.qkv.value, attention.out]}"
)
CHECKER = [
    "+safety_checker@model.visual_decoder.safety_checker=clip_vit_l14",
    "model.visual_decoder.safety_checker.image.width=8", "model.visual_decoder.safety_checker.image.image_size=28",
    "model.visual_decoder.safety_checker.image.blocks.depth=1", "model.visual_decoder.safety_checker.embed_dim=6",
    "model.visual_decoder.safety_checker.image.blocks.block.attention.qkv.heads=2",
    "model.visual_decoder.safety_checker.image.blocks.block.attention.qkv.head_dim=4",
    "model.visual_decoder.safety_checker.image.blocks.block.mlp.hidden=12",
]  # fmt: skip
SCALE = {"type": "sized_pictures"}


def made(name: str, overrides: list[str] | None = None) -> Any:
    """A small model in which no two tensors are alike."""
    model = create(name, overrides=overrides or [], seed=1)
    torch.manual_seed(2)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor.data, std=0.1)
    return model.eval()


def same(found: Any, wanted: Any) -> None:
    state = found.state_dict()
    assert state.keys() == wanted.state_dict().keys()
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize(
    ("name", "naming", "file", "first"),
    [("emu_tiny", "emu", "emu.json", "decoder.lm.stu_regress_head.weight"),
     ("emu2_tiny", "emu2", "config.json", "model.visual.cls_token"),
     ("emu2_tiny", "emu2_native", "emu.json", "visual.cls_token")],
)  # fmt: skip
def test_what_is_written_is_read_back(name: str, naming: str, file: str, first: str, tmp_path: Path) -> None:
    model = made(name) if naming != "emu2" else made(name, ["encoder@model.image_encoder=eva_vit_e14", *SMALL])
    folder = write_published(model, tmp_path / "out", naming, shard_size=2_000_000)
    assert (folder / file).is_file()
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert first in index
    assert len(set(index.values())) > 1
    again = from_pretrained(folder)
    same(again, model)
    assert again.processor.image_tokens == model.processor.image_tokens


#: A small Emu2 with a tower of the published kind.
SMALL = [
    "model.image_encoder.width=128", "model.image_encoder.image_size=32", "model.image_encoder.blocks.depth=1",
    "model.image_encoder.patches.patch_size=8", "model.image_encoder.blocks.block.mlp.hidden=200",
    "model.image_encoder.blocks.block.attention.qkv.heads=4",
    "model.image_encoder.blocks.block.attention.qkv.head_dim=32",
]  # fmt: skip


def test_adapters_are_written_as_peft_names_them(tmp_path: Path) -> None:
    model = made("emu_tiny", [ADAPTER])
    for naming, base in (("emu_instruct", ""), ("emu_instruct_new", "base_layer.")):
        folder = write_published(model, tmp_path / naming, naming)
        state = load_file(folder / "model.safetensors")
        place = "decoder.lm.base_model.model.model.layers.0.self_attn.v_proj."
        assert {
            f"{place}{base}weight",
            f"{place}lora_A.default.weight",
            f"{place}lora_B.default.weight",
        } <= state.keys()
        same(from_pretrained(folder), model)
        plain = copy.deepcopy(model.config)
        plain["decoder"]["blocks"]["adapter"] = None  # a named choice: the file's adapters go into the matrices
        merged: Any = from_pretrained(folder, config=plain)
        ids = torch.arange(12)[None]
        with torch.no_grad():
            torch.testing.assert_close(merged.decoder(ids), model.decoder(ids), atol=1e-5, rtol=1e-5)
    with pytest.raises(CheckpointError, match=r"adapter.*can be written as ours, emu_instruct, emu_instruct_new"):
        write_published(model, tmp_path / "x", "emu")


def test_a_scale_that_the_file_cannot_say_is_refused() -> None:
    node = declaration("emu_instruct")
    assert adapted_node(node)["decoder"]["blocks"]["adapter"]["rank"] == 16
    node["decoder"]["blocks"]["adapter"]["alpha"] = 32
    with pytest.raises(UnknownCheckpoint, match="alpha 32 and rank 16"):
        adapted_node(node)
    with pytest.raises(UnknownCheckpoint, match="no adapters"):
        adapted_node(declaration("emu_14b"))


def test_merged_adapters_are_written_as_a_plain_model(tmp_path: Path) -> None:
    """What is learnt beside the matrices goes into them; results stay, and the file needs no adapters."""
    model = made("emu_tiny", [ADAPTER])
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = model.decoder(ids)
        assert merge_adapters(model) == 4 * len(model.decoder.blocks.layers)
        torch.testing.assert_close(model.decoder(ids), expected, atol=1e-5, rtol=1e-5)
    model.config["decoder"]["blocks"].pop("adapter")
    again = from_pretrained(write_published(model, tmp_path / "out", "emu"))
    same(again, model)


@pytest.mark.parametrize(("name", "naming"), [("emu_tiny", "emu_folders"), ("emu2_tiny", "emu2_gen_folders")])
def test_a_visual_decoder_gets_its_folders(name: str, naming: str, tmp_path: Path) -> None:
    """diffusers reads its parts of what is written, and the whole is read back."""
    diffusers = pytest.importorskip("diffusers")
    tower = ["encoder@model.image_encoder=eva_vit_e14", *SMALL] if name == "emu2_tiny" else []
    model = made(name, ["visual_decoder@model.visual_decoder=tiny", *CHECKER, *tower])
    folder = write_published(model, tmp_path / "out", naming)
    assert {place.name for place in folder.iterdir()} == {"multimodal_encoder", "scheduler", "unet", "safety_checker"}
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    for key, tensor in model.visual_decoder.unet.state_dict().items():
        assert torch.equal(unet.state_dict()[key], tensor), key
    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    assert scheduler.config.prediction_type == "v_prediction"
    again: Any = from_pretrained(folder)
    same(again, model)
    assert type(again.visual_decoder.scheduler).__name__ == "DDIMScheduler"
    with pytest.raises(CheckpointError, match=f"can be written as ours, .*{naming}"):
        write_published(model, tmp_path / "x", "emu3")


def test_one_file_holds_a_visual_decoder_too(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    model = made("emu2_tiny", ["visual_decoder@model.visual_decoder=tiny", *CHECKER])
    folder = write_published(model, tmp_path / "out", "emu2_gen", format="pt")
    state = torch.load(folder / "model.pt", weights_only=True)
    assert {"multimodal_encoder.project_up.weight", "unet.conv_in.weight"} <= state.keys()
    same(from_pretrained(folder / "model.pt"), model)


def test_converting_on_the_command_line_goes_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From our folder to the published names and back, bit by bit."""
    model = made("emu_tiny")
    ours = write_published(model, tmp_path / "ours", "ours")
    assert convert([str(ours), f"out={tmp_path / 'theirs'}", "naming=emu"]) == 0
    assert convert([str(tmp_path / "theirs"), f"out={tmp_path / 'again'}", "naming=ours"]) == 0
    assert "folder:" in capsys.readouterr().out
    for name, tensor in load_file(ours / "model.safetensors").items():
        assert torch.equal(load_file(tmp_path / "again" / "model.safetensors")[name], tensor), name


@pytest.mark.parametrize("variant", ["emu2", "emu2_chat"])
def test_the_configuration_of_the_published_sizes_means_the_variant(variant: str) -> None:
    config = emu2_config(declaration(variant))
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"] - 32272) in (
        (6656, 60, 0), (6656, 60, 2)
    )  # fmt: skip
    assert config["vision_config"]["n_query"] == {"emu2": 64, "emu2_chat": 256}[variant]
    assert published_node(config)["card"]["name"] == variant


def test_what_a_configuration_cannot_say_is_refused() -> None:
    node = declaration("emu2")
    with pytest.raises(UnknownCheckpoint, match=r"no key for model\.image_encoder"):
        emu2_config({**node, "image_encoder": {**node["image_encoder"], "norm_in": {"type": "layer_norm"}}})
    with pytest.raises(UnknownCheckpoint, match=r"model\.connector"):
        emu2_config({**node, "connector": declaration("emu_14b")["connector"]})
    with pytest.raises(UnknownCheckpoint, match="no Emu, but 'eve'"):
        sizes_node(declaration("eve_tiny"))
    with pytest.raises(UnknownCheckpoint, match="has no folder of diffusers"):
        diffusion_config({"type": "linear_layer"})
    checker = declaration("emu2_gen")["visual_decoder"]["safety_checker"]
    assert checker_config(checker)["vision_config"]["hidden_size"] == 1024
    with pytest.raises(UnknownCheckpoint, match=r"safety_checker\.image"):
        checker_config({**checker, "image": declaration("emu2")["image_encoder"]})


def test_the_models_own_pieces_travel(tmp_path: Path) -> None:
    """A file of LLaMA's pieces lies beside the weights and is found there, wherever the folder goes."""
    file = tmp_path / "pieces" / "tokenizer.model"
    file.parent.mkdir()
    file.write_bytes(b"pieces")
    node = declaration("emu_tiny")
    tokenizer = declaration("emu_14b", [f"model.processor.texts.tokenizer.path={file}"])["processor"]["texts"]
    model = build_model({**node, "processor": None}).eval()
    model.config = {**node, "processor": {**node["processor"], "texts": tokenizer}}
    folder = write_published(model, tmp_path / "out", "emu")
    assert (folder / "tokenizer.model").read_bytes() == b"pieces"
    assert json.loads((folder / "emu.json").read_text())["processor"]["texts"]["tokenizer"]["path"] is None
