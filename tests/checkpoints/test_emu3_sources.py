"""Emu3 from its publishers' folders and from those of transformers, and back, with every tensor in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.checkpoints.configs import node_of
from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import (
    CheckpointError,
    CheckpointMismatch,
    MissingCheckpoint,
    UnknownCheckpoint,
)
from multimodal_zoo.checkpoints.store import recognise, save_model
from multimodal_zoo.checkpoints.tables import emu3
from multimodal_zoo.checkpoints.tables.emu3_config import published_node, with_vision
from multimodal_zoo.checkpoints.tables.emu3_vision_config import vision_node
from multimodal_zoo.commands.eval import load_model, slug
from multimodal_zoo.tokenizers.emu3_ids import SPECIAL, numbered_ids
from multimodal_zoo.tokenizers.vocabularies import RANKS_FILE, VISION_FILE, ranks_text
from multimodal_zoo.training.initial import initial_model
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

TEXT, CODES = 256, 40
IDS = numbered_ids(TEXT, CODES)
PUBLISHED = {
    "model_type": "Emu3", "architectures": ["Emu3ForCausalLM"], "vocab_size": TEXT + len(SPECIAL) + CODES,
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0, "rope_scaling": None, "attention_dropout": 0.1, "pretraining_tp": 1,
    "pad_token_id": IDS.pad, "bos_token_id": IDS.bos, "eos_token_id": IDS.eos, "img_token_id": IDS.image_token,
    "boi_token_id": IDS.image_start, "eoi_token_id": IDS.image_end, "eol_token_id": IDS.end_of_line,
    "eof_token_id": IDS.end_of_frame, "image_area": 1024,
}  # fmt: skip
VISION = {
    "model_type": "Emu3VisionVQ", "codebook_size": CODES, "embed_dim": 4, "z_channels": 4, "double_z": False,
    "in_channels": 3, "out_channels": 3, "temporal_downsample_factor": 4, "ch": 32, "ch_mult": [1, 1],
    "num_res_blocks": 1, "attn_resolutions": [1], "dropout": 0.0,
}  # fmt: skip
PICTURES = {"spatial_factor": 2, "min_pixels": 64, "max_pixels": 4096, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
ROWS = torch.tensor([[IDS.bos, 65, 66, IDS.image_start, IDS.image_token, IDS.visual_first, IDS.visual_first + 39]])
PIXELS = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture(scope="module")
def model() -> Any:
    made = build_model(with_vision(published_node(PUBLISHED), vision_node(VISION)))
    torch.manual_seed(0)
    for name, tensor in made.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.2)
    return made.eval()


def write(folder: Path, config: dict[str, Any], state: dict[str, Tensor], **others: Any) -> Path:
    """A folder as publishers have it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    for name, content in others.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def written_vocabulary(folder: Path) -> None:
    (folder / RANKS_FILE).write_text(ranks_text({bytes([i]): i for i in range(TEXT)}))
    visual = [f"<|visual token {code:06d}|>" for code in range(CODES)]
    (folder / VISION_FILE).write_text("".join(f"{word}\n" for word in (*SPECIAL[-3:], *visual)))


@pytest.fixture(scope="module")
def folders(model: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two published repositories."""
    place, state = tmp_path_factory.mktemp("emu3"), emu3.EMU3.save(model.state_dict())
    decoder = {name: tensor for name, tensor in state.items() if name.startswith(("model.", "lm_head."))}
    vision = {name: tensor for name, tensor in state.items() if name not in decoder}
    found = {
        "decoder": write(place / "Emu3-Gen", PUBLISHED, decoder),
        "vision_tokenizer": write(place / "Emu3-VisionTokenizer", VISION, vision, preprocessor_config=PICTURES),
    }
    written_vocabulary(found["decoder"])
    return found


def same(found: Any, wanted: Any, prefix: str = "") -> None:
    expected = {name: tensor for name, tensor in wanted.state_dict().items() if name.startswith(prefix)}
    assert {prefix + name for name in found.state_dict()} == expected.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, expected[prefix + name]), name


def test_a_published_decoder_comes_without_a_visual_tokenizer(model: Any, folders: dict[str, Path]) -> None:
    found = from_pretrained(folders["decoder"])
    assert found.vision_tokenizer is None
    same(found.decoder, model, "decoder.")
    with pytest.raises(ValueError, match=r"no visual tokenizer: give model\.vision_tokenizer"):
        found.encode(PIXELS)


def test_both_repositories_make_the_model(model: Any, folders: dict[str, Path]) -> None:
    found = from_pretrained(folders["decoder"], vision_tokenizer=folders["vision_tokenizer"])
    same(found, model)
    processor = found.processor
    assert processor.transform.rule(8, 12) == (8, 12)
    assert processor.text_ids("AB<|image start|>") == [65, 66, IDS.image_start]
    assert processor.image_area == 1024
    assert torch.equal(found.encode(PIXELS), model.encode(PIXELS))
    assert not any(parameter.is_meta for parameter in found.parameters())


def test_a_visual_tokenizer_comes_alone(model: Any, folders: dict[str, Path]) -> None:
    found = from_pretrained(folders["vision_tokenizer"])
    same(found, model, "vision_tokenizer.")
    assert found.processor.transform.rule.largest == 4096


def test_a_visual_tokenizer_that_cannot_be_is_not_called_damaged(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = write(tmp_path / "x", {**VISION, "double_z": True}, {"encoder.conv_in.weight": torch.zeros(4, 3, 3, 3)})
    with pytest.raises(UnknownCheckpoint, match=r"double_z is true") as caught:
        recognise(folder)
    assert "damaged" not in str(caught.value)


def test_counters_may_be_missing(model: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    state = load_file(folders["vision_tokenizer"] / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(state)
    same(from_pretrained(write(tmp_path / "x", VISION, kept)), model, "vision_tokenizer.")


@pytest.mark.parametrize("naming", ["emu3", "hf_emu3", "transformers_emu3", "ours"])
def test_what_is_written_is_read_back(model: Any, folders: dict[str, Path], naming: str, tmp_path: Path) -> None:
    whole = from_pretrained(folders["decoder"], vision_tokenizer=folders["vision_tokenizer"])
    folder = write_published(whole, tmp_path / "out", naming, shard_size=30_000)
    again = from_pretrained(folder)
    same(again, model)
    assert again.processor.text_ids("h\u00e9") == whole.processor.text_ids("h\u00e9")
    assert again.processor.transform.rule.smallest == 64
    rebuilt = {key: value for key, value in again.config.items() if key != "processor"}
    assert rebuilt == {key: value for key, value in whole.config.items() if key != "processor"}
    same(from_pretrained(folder, part="decoder"), model, "decoder.")
    same(from_pretrained(folder, part="vision_tokenizer"), model, "vision_tokenizer.")


@pytest.mark.parametrize("naming", ["emu3", "transformers_emu3"])
def test_a_codebook_of_averages_is_written_without_them(naming: str, tmp_path: Path) -> None:
    """Weights that `emu3/emoji` has trained become a published folder."""
    trained = create("emu3_tiny", seed=1)
    kept = set(trained.state_dict()) - {f"vision_tokenizer.quantizer.{name}" for name in ("counts", "sums")}
    assert len(kept) == len(trained.state_dict()) - 2
    again = from_pretrained(write_published(trained, tmp_path / "out", naming))
    assert again.config["vision_tokenizer"]["quantizer"]["type"] == "vector_quantizer"
    assert set(again.state_dict()) == kept
    assert all(torch.equal(again.state_dict()[name], trained.state_dict()[name]) for name in kept)
    codes = torch.arange(6).view(1, 2, 3)
    assert_close(again.decode(codes), trained.decode(codes))
    assert again.processor.text_ids("red apple") == trained.processor.text_ids("red apple")
    assert again.processor.transform.rule.factor == trained.processor.transform.rule.factor


@pytest.mark.parametrize("naming", ["hf_emu3", "transformers_emu3"])
def test_transformers_reads_what_is_written(model: Any, naming: str, tmp_path: Path) -> None:
    from transformers import Emu3ForConditionalGeneration

    folder = write_published(model, tmp_path / "out", naming)
    theirs, report = Emu3ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    theirs = theirs.eval()
    with torch.no_grad():
        assert_close(model.decoder.head(model(ROWS)), theirs(ROWS).logits, atol=1e-4, rtol=1e-4)
        tokens = theirs.model.get_image_tokens(PIXELS, torch.tensor([[8, 12]]))
    expected = model.encode(PIXELS)[0] + IDS.visual_first
    assert torch.equal(tokens.view(4, 7)[:, :6], expected)
    assert tokens.view(4, 7)[:, 6].eq(IDS.end_of_line).all()
    theirs.save_pretrained(tmp_path / "theirs")
    same(from_pretrained(tmp_path / "theirs"), model)


def test_transformers_decoder_alone_is_a_causal_decoder(model: Any, tmp_path: Path) -> None:
    from transformers import Emu3ForCausalLM

    whole = write_published(model, tmp_path / "out", "transformers_emu3")
    config = json.loads((whole / "config.json").read_text())["text_config"]
    decoder = Emu3ForCausalLM(Emu3ForCausalLM.config_class(**config))
    decoder.save_pretrained(tmp_path / "decoder")
    found = from_pretrained(tmp_path / "decoder")
    with torch.no_grad():
        assert_close(found.head(found(ROWS)), decoder.eval()(ROWS).logits, atol=1e-5, rtol=1e-4)


def test_variants_take_their_parts_from_several_places(model: Any, folders: dict[str, Path]) -> None:
    config = declaration("emu3_tiny")
    node = {**config, **{key: model.config[key] for key in ("decoder", "vision_tokenizer", "ids")}}
    recipe = {"model": node, "seed": 0, "trainer": None}
    said: list[str] = []
    start, _ = initial_model({**recipe, "initial_weights": dict(folders)}, say=said.append)
    same(start, model)
    assert [line.split(":")[0] for line in said] == [
        "initial_weights.decoder",
        "initial_weights.vision_tokenizer",
        "random",
    ]
    assert "random: 0" in said[2]
    start, _ = initial_model({**recipe, "initial_weights": {"vision_tokenizer": folders["vision_tokenizer"]}})
    same(start.vision_tokenizer, model, "vision_tokenizer.")


def sizes(model: Any) -> dict[str, Any]:
    """Values of `create` that make a variant as small as the test's model."""
    texts = {"type": "emu3_tokenizer", "codebook_size": CODES}
    texts["vocabulary"] = {"type": "tiktoken_file", "path": None, "size": TEXT, "sha256": None}
    parts = {key: model.config[key] for key in ("decoder", "vision_tokenizer", "ids")}
    return {**parts, "processor": {"texts": texts}}


def test_create_takes_parts_from_several_places(model: Any, folders: dict[str, Path], tmp_path: Path) -> None:
    found = create("emu3_gen", pretrained=folders, **sizes(model))
    same(found, model)
    assert "decoder: " in found.weights
    assert not found.training
    assert found.processor.text_ids("AB") == [65, 66]
    half = create("emu3_gen", pretrained=folders, dtype="bfloat16", **sizes(model))
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    small = create("emu3_gen", pretrained=folders, quantize="int8", **sizes(model))
    with torch.no_grad():
        assert_close(small(ROWS).float(), model(ROWS), atol=0.2, rtol=0.1)
    again = create("emu3_gen", pretrained={**folders, "decoder": save_model(model, tmp_path / "x")}, **sizes(model))
    same(again, model)


def test_parts_that_do_not_fit_are_named(model: Any, folders: dict[str, Path]) -> None:
    values = sizes(model)
    with pytest.raises(CheckpointMismatch, match=r"holds nothing of vision_tokenizer; pretrained=\{.decoder.: PLACE"):
        create("emu3_gen", pretrained=folders["decoder"], **values)
    with pytest.raises(CheckpointMismatch, match="missing"):
        create("emu3_gen", pretrained={"decoder": folders["decoder"]}, **values)
    with pytest.raises(ValueError, match="pretrained names image; the model's parts are decoder, vision_tokenizer"):
        create("emu3_gen", pretrained={"image": folders["decoder"]}, **values)
    with pytest.raises(CheckpointMismatch):
        create("emu3_gen", pretrained={**folders, "decoder": folders["vision_tokenizer"]}, **values)
    with pytest.raises(UnknownCheckpoint, match=r"vision_tokenizer=.*expected a visual tokenizer, found a published"):
        from_pretrained(folders["decoder"], vision_tokenizer=folders["decoder"])
    with pytest.raises(UnknownCheckpoint, match="vision_tokenizer is a part of an Emu3"):
        from_pretrained(folders["vision_tokenizer"], vision_tokenizer=folders["vision_tokenizer"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bos_token_id": 3}, "the id of bos is 3; expected 462"),
        ({"eol_token_id": 3}, "the id of end_of_line is 3; expected 459"),
        ({"vocab_size": 400}, "leave no visual tokens"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling is .*yarn.*takes default, linear, dynamic"),
    ],
)
def test_what_no_part_does_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=message):
        node_of({**PUBLISHED, **change})


def test_another_vocabulary_of_transformers_is_refused(model: Any, tmp_path: Path) -> None:
    folder = write_published(model, tmp_path / "out", "transformers_emu3")
    config = json.loads((folder / "config.json").read_text())
    config["vocabulary_map"]["<|extra_200|>"] = 5
    with pytest.raises(UnknownCheckpoint, match=r"numbers <\|extra_200\|> as 5; expected 459"):
        node_of(config)


def test_published_configurations_are_the_variants() -> None:
    full = {**PUBLISHED, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    full |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 184622, "image_area": 518400}
    numbered = numbered_ids(151643, 32768)
    full |= {"pad_token_id": 151643, "bos_token_id": 151849, "eos_token_id": 151850, "max_position_embeddings": 9216}
    full = {key: value for key, value in full.items() if key not in ("img_token_id", "boi_token_id", "eoi_token_id")}
    full |= {"eol_token_id": numbered.end_of_line, "eof_token_id": numbered.end_of_frame}
    declared = declaration("emu3_gen")
    assert with_vision(node_of(full), vision_node({})) == declared
    chat = node_of({**full, "max_position_embeddings": 131072, "image_area": 262144})
    assert chat["card"]["name"] == "emu3_chat"
    other = node_of({**full, "image_area": 65536})
    assert "name" not in other["card"]
    assert other["processor"]["image_area"] == 65536
    assert node_of({"model_type": "Emu3VisionVQ"}) == declaration("emu3_vision_tokenizer")


def test_attention_of_several_widths_is_no_transformers_model(model: Any, tmp_path: Path) -> None:
    vision = vision_node({**VISION, "ch_mult": [1, 2], "attn_resolutions": [0, 1]})
    wide = build_model(with_vision(published_node(PUBLISHED), vision), device="meta")
    with pytest.raises(
        CheckpointError, match=r"levels \[0\] are not as wide as the last.*can be written as ours, emu3"
    ):
        write_published(wide, tmp_path / "out", "transformers_emu3")


@pytest.mark.parametrize("naming", ["emu3", "transformers_emu3"])
def test_a_codebook_of_means_is_written_as_a_plain_one(naming: str, tmp_path: Path) -> None:
    made = create("emu3_tiny", overrides=["model.decoder.blocks.depth=1"]).eval()
    with torch.no_grad():
        made.vision_tokenizer.quantizer.codebook.normal_()
    again = from_pretrained(write_published(made, tmp_path / "out", naming))
    assert again.config["vision_tokenizer"]["quantizer"]["type"] == "vector_quantizer"
    pixels = made.processor.images([Image.new("RGB", (32, 32), "red")])[0][None]
    assert torch.equal(again.encode(pixels), made.encode(pixels))
    assert_close(again.decode(again.encode(pixels)), made.decode(made.encode(pixels)))
    assert again.processor.text_ids("twemoji: honeybee") == made.processor.text_ids("twemoji: honeybee")


def test_commands_take_parts_from_several_places(model: Any, folders: dict[str, Path]) -> None:
    node = {**declaration("emu3_tiny"), **sizes(model)}
    node["processor"] = {**declaration("emu3_tiny")["processor"], **sizes(model)["processor"]}
    places = {part: str(place) for part, place in folders.items()}
    config = OmegaConf.create({"source": None, "model": node, "weights": places, "allow_random": False})
    same(load_model(config, "eval"), model)
    assert slug(config) == slug(config) != slug(OmegaConf.merge(config, {"weights": {"decoder": "elsewhere"}}))
    beside = {"source": places["decoder"], "vision_tokenizer": places["vision_tokenizer"], "model": None}
    same(load_model(OmegaConf.create({**beside, "weights": None}), "eval"), model)


def test_the_card_names_both_repositories() -> None:
    with pytest.raises(MissingCheckpoint, match="hf://BAAI/Emu3-Gen: not in the local cache"):
        create("emu3_gen", pretrained="published")
    with pytest.raises(ValueError, match="emu3_tiny has no published weights"):
        create("emu3_tiny", pretrained="published")
