"""EVE from its publishers' folders and back, of both versions, with every tensor and every input in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.checkpoints.configs import node_of
from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import CheckpointError, CheckpointMismatch, UnknownCheckpoint
from multimodal_zoo.checkpoints.store import recognise, save_model
from multimodal_zoo.checkpoints.tables.eve_config import moe_parts, published_node, version_of
from multimodal_zoo.cli import main
from multimodal_zoo.data.documents import Document, Text
from multimodal_zoo.data.documents import Image as Picture
from multimodal_zoo.nn.patch_cells import PatchCells
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

ALIGNER = {"type": "patch_aligning", "width": 128, "teacher_width": 32, "depth": 4}
LLAMA = {
    "architectures": ["EVELlamaForCausalLM"], "model_type": "eve", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "pad_token_id": 0, "mm_hidden_size": 1024,
    "mm_projector_type": "mlp2x_gelu", "requires_cliploss": True, "mm_vision_tower": "openai/eve-patch14-anypixel-672",
}  # fmt: skip
QWEN = {
    "architectures": ["EVEQwen2ForCausalLM"], "model_type": "eve_qwen2", "vocab_size": 152064, "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 32768, "use_sliding_window": False,
    "sliding_window": None, "mm_hidden_size": 1024, "add_moe": True, "moe_part": "layernorm-self_attn-mlp",
}  # fmt: skip


def stage0() -> dict[str, Any]:
    """The node of a small EVE v2 whose pictures have no weights of their own yet."""
    node = declaration("eve_v2_tiny")
    node["decoder"]["blocks"]["block"] = node["decoder"]["blocks"]["block"]["block"]
    return node


def node(naming: str) -> dict[str, Any]:
    if naming == "eve_v2_stage0":
        return stage0()
    return declaration("eve_v2_tiny") if naming == "eve_v2" else declaration("eve_tiny")


def random(config: dict[str, Any], seed: int = 1) -> Any:
    """A model in which no two tensors are alike."""
    model = build_model(config)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def same(found: Any, wanted: Any) -> None:
    state = wanted.state_dict()
    assert found.state_dict().keys() == state.keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Of a row with a picture of 2 x 3 cells between texts."""
    embedding = model.vision_embedding
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(6, embedding.window**2, 3 * embedding.patch**2, generator=generator)
    cells = PatchCells(pixels, ((2, 3),), embedding.patch, embedding.window)
    ids = torch.randint(0, 1000, (1, 15), generator=generator)
    vision = (torch.arange(15) >= 2) & (torch.arange(15) < 11)
    return model.decoder.head(model(ids, vision=vision[None], pictures=cells))


@pytest.mark.parametrize("naming", ["eve", "eve_v2", "eve_v2_stage0"])
def test_folders_go_out_and_come_back(naming: str, tmp_path: Path) -> None:
    model = random(node(naming))
    folder = write_published(model, tmp_path / "out", naming, shard_size=1_000_000)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    again = from_pretrained(folder)
    same(again, model)
    assert_close(logits(again), logits(model), atol=1e-6, rtol=1e-5)
    assert again.config["aligner"] is None
    assert not any(parameter.is_meta for parameter in again.parameters())
    picture = Image.new("RGB", (40, 24), (200, 30, 90))
    shown, wanted = (
        one.processor.prompt(Document([Picture(picture), Text("What is it?<|im_end|>", role="user")]))
        for one in (again, model)
    )
    assert torch.equal(shown.ids, wanted.ids)
    assert again.processor.decode(shown.ids[-4:]) == model.processor.decode(wanted.ids[-4:])
    assert torch.equal(shown.cells.pixels, wanted.cells.pixels)
    second = write_published(again, tmp_path / "second", naming)
    for name in ("config.json", "preprocessor_config.json"):
        assert (second / name).read_text() == (folder / name).read_text()


def test_pickled_shards_with_everything_that_training_saves(tmp_path: Path) -> None:
    """Two `.bin` files and an index, the aligning layer, the teacher twice and the rotary tables of old files."""
    model = random({**declaration("eve_tiny"), "aligner": ALIGNER})
    written = write_published(model, tmp_path / "out", "eve_training")
    state = load_file(written / "model.safetensors")
    assert any("vision_tower_compressor" in name for name in state)
    teacher = {"embeddings.class_embedding": torch.randn(32), "pre_layrnorm.weight": torch.randn(32)}
    for prefix in ("model.vision_clip.backbone.vision_model.", "model.vision_tower_compressor.clip_layer.backbone."):
        state |= {prefix + name: tensor for name, tensor in teacher.items()}
    state |= {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(16) for i in range(4)}
    folder = tmp_path / "pickled"
    folder.mkdir()
    half, placed = len(state) // 2, {}
    for number, names in enumerate((list(state)[:half], list(state)[half:])):
        file = f"pytorch_model-{number + 1:05d}-of-00002.bin"
        torch.save({name: state[name] for name in names}, folder / file)
        placed |= dict.fromkeys(names, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}))
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text((written / name).read_text())
    found = from_pretrained(folder)
    assert found.aligner is None
    model.aligner = None
    same(found, model)
    same(create("eve_tiny", pretrained=folder), model)
    index = {**placed, "model.vision_tower.strange": file}
    torch.save({**{n: state[n] for n in names}, "model.vision_tower.strange": torch.ones(1)}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(CheckpointMismatch, match=r"unexpected .*: 1\n  model\.vision_tower\.strange"):
        from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "variant"),
    [
        (LLAMA, "eve_7b"),
        ({**LLAMA, "mm_vision_tower": "openai/eve-patch14-anypixel-1344"}, "eve_7b_hd"),
        ({**LLAMA, "mm_vision_tower": None}, "eve_7b"),
        (QWEN, "eve_v2_7b_hd"),
    ],
)
def test_published_configurations_are_the_variants(config: dict[str, Any], variant: str) -> None:
    found, declared = node_of(config), declaration(variant)
    assert found["card"]["name"] == variant
    for part in ("vision_embedding", "processor"):
        assert found[part] == declared[part]
    assert found["decoder"].pop("pad_id") == config.get("pad_token_id")
    del declared["decoder"]["pad_id"]
    assert found["decoder"]["blocks"]["block"] == declared["decoder"]["blocks"]["block"]
    assert {k: v for k, v in found["decoder"].items() if k != "max_positions"} == {
        k: v for k, v in declared["decoder"].items() if k != "max_positions"
    }
    model = build_model(found, device="meta")
    assert sum(p.numel() for p in model.parameters()) == declared["card"]["parameters"]


def test_a_preprocessor_in_the_folder_wins_over_the_name() -> None:
    facts = {"image_size": 1344, "image_mean": [0.5] * 3, "template": "eve_v1"}
    found = published_node(LLAMA, facts)
    assert found["card"]["name"] == "eve_7b_hd"
    assert found["processor"]["images"]["mean"] == [0.5] * 3
    assert found["processor"]["template"] == "eve_v1"
    other = published_node(LLAMA, {"image_size": 448})
    assert "name" not in other["card"]
    assert other["processor"]["images"]["image_size"] == 448


@pytest.mark.parametrize(
    ("config", "version"),
    [
        ({"architectures": ["EVELlamaForCausalLM"]}, 1),
        ({"architectures": ["EVEQwen2ForCausalLM"]}, 2),
        ({"model_type": "eve", "mm_hidden_size": 1024}, 1),
        ({"model_type": "eve", "mm_hidden_size": 1024, "add_moe": False}, 2),
        ({"model_type": "eve_qwen2", "mm_hidden_size": 1024}, 2),
        ({"model_type": "llava_llama", "mm_hidden_size": 1024, "mm_projector_type": "mlp2x_gelu"}, None),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, None),
    ],
)
def test_versions_are_told_by_classes_and_keys(config: dict[str, Any], version: int | None) -> None:
    assert version_of(config) == version


def test_which_weights_pictures_have_for_themselves() -> None:
    assert moe_parts(QWEN) == ["norm", "attention", "mlp"]
    assert moe_parts({"add_moe": True}) == ["norm", "attention", "mlp"]
    assert moe_parts({"add_moe": True, "moe_part": "mlp"}) == ["mlp"]
    assert moe_parts({"add_moe": True, "moe_part": "layernorm-self_attn"}) == ["norm", "attention"]
    assert moe_parts({"add_moe": False, "moe_part": "mlp"}) == moe_parts({}) == []
    with pytest.raises(UnknownCheckpoint, match="moe_part names 'experts'; it takes layernorm-self_attn-mlp"):
        moe_parts({"moe_part": "experts"})
    with pytest.raises(UnknownCheckpoint, match="mm_projector_type is 'linear'; EVE's is 'mlp2x_gelu'"):
        published_node({**LLAMA, "mm_projector_type": "linear"})
    with pytest.raises(UnknownCheckpoint, match="model_type 'gpt2' is no EVE"):
        published_node({"model_type": "gpt2"})


def test_only_some_parts_twice_go_out_and_come_back(tmp_path: Path) -> None:
    config = declaration("eve_v2_tiny")
    config["decoder"]["blocks"]["block"]["parts"] = ["mlp"]
    model = random(config)
    folder = write_published(model, tmp_path / "out", "eve_v2")
    assert json.loads((folder / "config.json").read_text())["moe_part"] == "mlp"
    same(from_pretrained(folder), model)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("eve")
    return {
        naming: write_published(random(node(naming)), place / naming, naming)
        for naming in ("eve", "eve_v2", "eve_v2_stage0")
    }


@pytest.mark.parametrize(
    ("file", "model", "message"),
    [
        (
            "eve",
            "eve_v2_tiny",
            r"holds EVE of version 1, the model is EVE of version 2: choose a model of version 1",
        ),
        (
            "eve_v2",
            "eve_tiny",
            r"holds EVE of version 2, the model is EVE of version 1: .*\(eve_v2_7b_hd",
        ),
        ("eve_v2_stage0", "eve_v2_tiny", r"no weights of their own for pictures.*copy_vision_branch: true"),
        ("eve_v2_stage0", "eve_tiny", r"holds EVE of version 2, the model is EVE of version 1"),
    ],
)
def test_another_kind_of_eve_is_named_with_the_key_to_change(
    file: str, model: str, message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointMismatch, match=message):
        create(model, pretrained=folders[file])
    ours = save_model(from_pretrained(folders[file]), tmp_path / "ours")
    with pytest.raises(CheckpointMismatch, match=message):
        create(model, pretrained=ours)


def test_branches_in_the_file_and_none_in_the_model(folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointMismatch, match=r"model\.decoder needs decoupled_block"):
        from_pretrained(folders["eve_v2"], config=stage0())


def test_models_that_a_naming_cannot_express(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no EVE of version 2.*can be written as ours, eve$"):
        write_published(random(declaration("eve_tiny")), tmp_path / "a", "eve_v2")
    with pytest.raises(CheckpointError, match="no aligning layer"):
        write_published(random(declaration("eve_tiny")), tmp_path / "b", "eve_training")
    biased = declaration("eve_tiny")
    biased["decoder"]["blocks"]["block"]["attention"]["qkv"]["biased"] = ["query"]
    with pytest.raises(CheckpointError, match="has no key for"):
        write_published(random(biased), tmp_path / "c", "eve")
    with pytest.raises(CheckpointError, match="no weights of their own for pictures"):
        write_published(random(stage0()), tmp_path / "d", "eve_v2")
    heads = declaration("eve_tiny")
    heads["vision_embedding"]["heads"] = 4
    with pytest.raises(CheckpointError, match=r"has no key for model\.vision_embedding\.heads=4"):
        write_published(random(heads), tmp_path / "e", "eve")


def test_a_folder_of_other_sizes_lists_what_does_not_fit(folders: dict[str, Path], tmp_path: Path) -> None:
    source = folders["eve"]
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(CheckpointMismatch, match=r"missing .*: 9"):
        from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "mm_hidden_size": 32}))
    with pytest.raises(CheckpointMismatch, match="misshapen"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("naming", ["eve", "eve_v2"])
def test_types_and_bits(naming: str, folders: dict[str, Path]) -> None:
    model = from_pretrained(folders[naming])
    variant = {"eve": "eve_tiny", "eve_v2": "eve_v2_tiny"}[naming]
    half = create(variant, pretrained=folders[naming], dtype="bfloat16")
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    pytest.importorskip("torchao")
    small = create(variant, pretrained=folders[naming], quantize="int8")
    assert small.quantized == "int8"
    assert_close(logits(small), logits(model), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("naming", ["eve", "eve_v2"])
def test_parts_on_disk_compute_the_same(naming: str, folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    placement = {"decoder": "disk", "decoder.blocks.layers.1": "cpu", "vision_embedding": "disk"}
    variant = {"eve": "eve_tiny", "eve_v2": "eve_v2_tiny"}[naming]
    placed = create(variant, pretrained=folders[naming], placement=placement, offload_folder=tmp_path / "disk")
    assert any(parameter.is_meta for parameter in placed.parameters())
    assert_close(logits(placed), logits(from_pretrained(folders[naming])), atol=1e-6, rtol=1e-5)


def test_files_of_a_folder_reach_the_tokenizer(folders: dict[str, Path], tmp_path: Path) -> None:
    """A variant of a published size gets the tokenizer that lies beside its weights."""
    from tokenizers.models import WordLevel

    from tokenizers import Tokenizer

    words = Tokenizer(WordLevel({"a": 0, "<|endoftext|>": 1, "<|im_end|>": 2}, unk_token="a"))
    words.save(str(tmp_path / "tokenizer.json"))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders["eve_v2"] / name).read_bytes())
    found = recognise(tmp_path).config["processor"]["texts"]
    assert found == {
        "type": "json_tokenizer", "path": str(tmp_path / "tokenizer.json"), "eos": "<|im_end|>",
        "pad": "<|endoftext|>", "bos": None,
    }  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folders["eve"] / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": False}))
    found = recognise(tmp_path).config["processor"]["texts"]
    assert found == {"type": "llama_tokenizer", "path": str(tmp_path / "tokenizer.model"), "legacy": False}


def test_the_command_line_converts(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(folders["eve_v2"]), f"out={tmp_path / 'ours'}", "naming=ours"]) == 0
    assert main(["convert", str(tmp_path / "ours"), f"out={tmp_path / 'theirs'}", "naming=eve_v2"]) == 0
    assert "qwen.tiktoken" in capsys.readouterr().out
    same(from_pretrained(tmp_path / "theirs"), from_pretrained(folders["eve_v2"]))
    assert (tmp_path / "theirs" / "config.json").read_text() == (folders["eve_v2"] / "config.json").read_text()
