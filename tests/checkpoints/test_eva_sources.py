"""EVA-CLIP from anybody's files: the Hub's folders, original files with and without their JSON, open_clip's folders."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.checkpoints.configs import node_of, open_clip_node
from multimodal_zoo.checkpoints.errors import (
    CheckpointMismatch,
    CorruptCheckpoint,
    MissingCheckpoint,
    UnknownCheckpoint,
)
from multimodal_zoo.checkpoints.guess import variant_on_meta
from multimodal_zoo.checkpoints.load import load_into
from multimodal_zoo.checkpoints.store import recognise, save_model
from multimodal_zoo.checkpoints.tables import eva_clip
from multimodal_zoo.checkpoints.tables.eva_clip_config import original_node
from multimodal_zoo.encoders.vision_transformer import VisionTransformer
from multimodal_zoo.zoo import build_model, create, declaration, from_pretrained

GOLDENS = Path(__file__).parents[1] / "goldens" / "eva_clip"
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Configuration, inputs and outputs, and weights by the rule of the golden cases."""
    case = json.loads((GOLDENS / name / "case.json").read_text())
    state = {}
    for key, shape in case["manifest"].items():
        x = torch.from_numpy(
            np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(tuple(shape))
        )
        gain = key.rsplit(".", 1)[-1] in ("weight", "gamma")
        x = x / math.sqrt(math.prod(shape[1:])) if len(shape) >= 2 else (1 if gain else 0) + 0.02 * x
        state[key] = x.float()
    state |= {key: torch.tensor(value) for key, value in case["fixed"].items()}
    return case["config"], load_file(GOLDENS / name / "io.safetensors"), state


def check(model: Any, io: dict[str, Tensor]) -> None:
    with torch.no_grad():
        found = model(io["image"], io["ids"])
    assert_close(found.image, F.normalize(io["image_features"], dim=-1), **CLOSE)
    assert_close(found.text, F.normalize(io["text_features"], dim=-1), **CLOSE)


def sharded(folder: Path, state: dict[str, Tensor], suffix: str) -> None:
    """Three shards with an index, as transformers writes them; blocks are spread over all of them."""
    stem, index = ("model", "model.safetensors") if suffix == ".safetensors" else ("pytorch_model", "pytorch_model.bin")
    placed = {name: f"{stem}-{i % 3 + 1:05d}-of-00003{suffix}" for i, name in enumerate(state)}
    for shard in sorted(set(placed.values())):
        part = {name: tensor for name, tensor in state.items() if placed[name] == shard}
        save_file(part, folder / shard) if suffix == ".safetensors" else torch.save(part, folder / shard)
    content = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / f"{index}.index.json").write_text(json.dumps(content))


HUB_FACTS = [
    {"model_type": "clip", "architectures": ["EvaCLIPModel"]},
    {"model_type": "evaclip"},
    {"model_type": "clip", "auto_map": {"AutoModel": "modeling_evaclip.EvaCLIPModel"}},
    {},
]


@pytest.mark.parametrize(
    ("facts", "suffix"), [*((facts, ".safetensors") for facts in HUB_FACTS), (HUB_FACTS[0], ".bin")]
)
def test_hub_folders_give_the_published_numbers(tmp_path: Path, facts: dict[str, Any], suffix: str) -> None:
    config, io, state = golden("hf_evaclip_naming")
    (tmp_path / "config.json").write_text(json.dumps({**config, **facts, "transformers_version": "4.31.0"}))
    sharded(tmp_path, state, suffix)
    model: Any = from_pretrained(tmp_path)
    check(model, io)
    assert model.scale().item() == pytest.approx(100.0)
    assert model.weights == str(tmp_path)
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_a_hub_folder_gives_one_tower_and_names_missing_shards(tmp_path: Path) -> None:
    config, io, state = golden("hf_evaclip_naming")
    (tmp_path / "config.json").write_text(json.dumps({**config, **HUB_FACTS[0]}))
    sharded(tmp_path, state, ".safetensors")
    whole: Any = from_pretrained(tmp_path)
    tower: Any = from_pretrained(tmp_path, part="image")
    assert isinstance(tower, VisionTransformer)
    with torch.no_grad():
        assert torch.equal(tower(io["image"]).pooled, whole.image(io["image"]).pooled)
    lost = tmp_path / "model-00002-of-00003.safetensors"
    lost.unlink()
    for part in (None, "image"):
        with pytest.raises(MissingCheckpoint, match=rf"1 shard\(s\) of it are missing: {lost.name}"):
            from_pretrained(tmp_path, part=part)


def test_a_plain_clip_folder_is_none_of_them(tmp_path: Path) -> None:
    facts = {"model_type": "clip", "architectures": ["CLIPModel"], "vision_config": {}, "text_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    save_file({"logit_scale": torch.ones(()), "x": torch.ones(2)}, tmp_path / "model.safetensors")
    assert recognise(tmp_path).kind == "a Hugging Face CLIPModel folder"


def test_the_older_port_says_by_its_tensors_that_its_head_has_a_bias(tmp_path: Path) -> None:
    config, io, state = golden("clip_bige")
    model = build_model(original_node(config))
    load_into(model, state, eva_clip.ORIGINAL)
    vision = {"hidden_size": 36, "intermediate_size": 308, "num_hidden_layers": 2, "num_attention_heads": 3,
              "image_size": 28, "patch_size": 7, "layer_norm_eps": 1e-6, "q_bias": True, "k_bias": False,
              "v_bias": True, "post_layernorm": True}  # fmt: skip
    text = {"vocab_size": 71, "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 9}  # fmt: skip
    facts = {"model_type": "clip", "projection_dim": 16, "vision_config": vision, "text_config": text}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}))
    ported = eva_clip.HUB_SCALED.save(model.state_dict())
    torch.save({name: tensor.clone() for name, tensor in ported.items()}, tmp_path / "pytorch_model.bin")
    again: Any = from_pretrained(tmp_path)
    check(again, io)
    assert_close(again.scale(), io["scale"])
    assert again.config["processor"]["images"]["std"] == [1, 1, 1]


@pytest.fixture
def original(tmp_path: Path) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    config, io, state = golden("clip_eva02")
    path = tmp_path / "weights.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    return path, config, io


def test_an_original_file_has_its_configuration_beside_it(original: tuple[Path, dict[str, Any], Any]) -> None:
    path, config, io = original
    with pytest.raises(UnknownCheckpoint, match=r"2 image blocks of width 48 with LayerNorm, a 4x4 grid.*give config="):
        from_pretrained(path)
    (path.parent / "EVA02-CLIP-tiny.json").write_text(json.dumps(config))
    (path.parent / "other.json").write_text("[1]")
    (path.parent / "broken.json").write_text("{")
    wider = {**config, "vision_cfg": {**config["vision_cfg"], "width": 64}}
    (path.parent / "wider.json").write_text(json.dumps(wider))
    for place in (path, path.parent):
        check(from_pretrained(place), io)
    turned = {**config, "vision_cfg": {**config["vision_cfg"], "postnorm": True}}
    (path.parent / "turned.json").write_text(json.dumps(turned))
    with pytest.raises(UnknownCheckpoint, match=r"fit several of .*turned\.json"):
        from_pretrained(path)
    (path.parent / "weights.json").write_text(json.dumps(config))
    check(from_pretrained(path), io)
    (path.parent / "weights.json").write_text(json.dumps(wider))
    with pytest.raises(CheckpointMismatch, match="misshapen"):
        from_pretrained(path)


def test_a_configuration_that_fits_nothing_is_passed_over(original: tuple[Path, dict[str, Any], Any]) -> None:
    path, config, _ = original
    wider = {**config, "vision_cfg": {**config["vision_cfg"], "width": 64}}
    (path.parent / "wider.json").write_text(json.dumps(wider))
    with pytest.raises(UnknownCheckpoint, match="give config="):
        from_pretrained(path)


def test_a_configuration_may_be_given(original: tuple[Path, dict[str, Any], Any]) -> None:
    path, config, io = original
    beside = path.parent / "elsewhere" / "EVA02.json"
    beside.parent.mkdir()
    beside.write_text(json.dumps(config))
    for given in (config, beside, str(beside), original_node(config)):
        check(from_pretrained(path, config=given), io)
    with pytest.raises(MissingCheckpoint, match=r"nowhere\.json: no such file"):
        from_pretrained(path, config="nowhere.json")
    beside.write_text("[]")
    with pytest.raises(CorruptCheckpoint, match="expected a JSON object"):
        from_pretrained(path, config=beside)
    with pytest.raises(UnknownCheckpoint, match="the keys a, b"):
        from_pretrained(path, config={"a": 1, "b": 2})
    with pytest.raises(KeyError, match="eva_clip_b16"):
        from_pretrained(path, config="eva_clip_b61")


@pytest.fixture(scope="module")
def tiny() -> Any:
    model = create("eva_clip_tiny")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


@pytest.mark.parametrize(
    "naming", [eva_clip.ORIGINAL, eva_clip.ROOT_TEXT, eva_clip.TEXT_SCALE, eva_clip.OPEN_CLIP_SEPARATE]
)
def test_a_bare_file_of_a_declared_variant_is_told_by_its_shapes(tmp_path: Path, tiny: Any, naming: Any) -> None:
    torch.save({k: t.clone() for k, t in naming.save(tiny.state_dict()).items()}, tmp_path / "some.pt")
    source = recognise(tmp_path / "some.pt")
    assert (source.variant, source.naming) == ("eva_clip_tiny", naming)
    model: Any = from_pretrained(tmp_path / "some.pt")
    assert model.variant == "eva_clip_tiny"
    assert model.state_dict().keys() == tiny.state_dict().keys()
    assert all(torch.equal(tensor, tiny.state_dict()[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("EVA01-g-14-plus", "eva_clip_g14_plus"),
        ("EVA02-B-16", "eva_clip_b16"),
        ("EVA02-L-14-336", "eva_clip_l14_336"),
        ("EVA02-E-14-plus", "eva_clip_e14_plus"),
    ],
)
def test_open_clip_configurations_name_a_tower_of_timm(name: str, variant: str) -> None:
    import open_clip

    node, wanted = open_clip_node(open_clip.get_model_config(name)), declaration(variant)
    node["image"]["blocks"]["drop_path"] = wanted["image"]["blocks"]["drop_path"]  # theirs says nothing of training
    assert node == wanted


def test_an_open_clip_folder_brings_its_transform(tmp_path: Path) -> None:
    import open_clip

    facts = {"model_cfg": open_clip.get_model_config("EVA02-B-16"), "preprocess_cfg": {"resize_mode": "squash"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(facts))
    source = recognise_shapes(tmp_path, eva_clip.OPEN_CLIP_SEPARATE.save(variant_on_meta("eva_clip_tiny").state_dict()))
    assert source.variant == "eva_clip_b16"
    assert source.config["processor"]["images"]["resize"] == "squash"


def recognise_shapes(folder: Path, state: dict[str, Tensor]) -> Any:
    save_file({key: torch.zeros(1) for key in state}, folder / "open_clip_model.safetensors")
    return recognise(folder)


@pytest.mark.parametrize(
    ("wanted", "given", "naming"),
    [
        ("eva_clip_l14", "eva_clip_b16", eva_clip.ORIGINAL),
        ("eva_clip_8b", "eva_clip_8b_448", eva_clip.HUB),
    ],
)
def test_a_file_of_another_size_is_named_in_the_error(wanted: str, given: str, naming: Any) -> None:
    state = naming.save(variant_on_meta(given).state_dict())
    with pytest.raises(CheckpointMismatch, match=f"its shapes are those of {given}: config='{given}'"):
        load_into(variant_on_meta(wanted), state, naming, assign=True)


def test_types_follow_the_caller_and_half_precision_files_are_widened(tmp_path: Path, tiny: Any) -> None:
    state = eva_clip.ORIGINAL.save(tiny.state_dict())
    path = tmp_path / "half.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path)
    widened: Any = create("eva_clip_tiny", pretrained=path)
    assert {p.dtype for p in widened.parameters()} == {torch.float32}
    assert torch.equal(widened.image.positions.weight, tiny.image.positions.weight.half().float())
    kept: Any = create("eva_clip_tiny", pretrained=path, dtype="auto")
    assert {p.dtype for p in kept.parameters()} == {torch.float16}
    other: Any = from_pretrained(path, dtype=torch.bfloat16)
    assert {p.dtype for p in other.parameters()} == {torch.bfloat16}
    assert create("eva_clip_tiny", dtype="float16", device="meta").image.patches.weight.dtype == torch.float16
    for alias, dtype in {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.items():
        assert create("eva_clip_tiny", dtype=alias, device="meta").image.patches.weight.dtype == dtype
    with pytest.raises(ValueError, match="dtype='int8': expected float32"):
        create("eva_clip_tiny", pretrained=path, dtype="int8")
    save_model(kept, tmp_path / "saved")
    again: Any = from_pretrained(tmp_path / "saved", dtype="auto")
    assert torch.equal(again.image.positions.weight, kept.image.positions.weight)


def test_one_tower_alone_is_a_model_of_its_own(tmp_path: Path, tiny: Any) -> None:
    state = eva_clip.ORIGINAL.save(tiny.state_dict())
    torch.save({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "whole.pt")
    tower: Any = from_pretrained(tmp_path / "whole.pt", part="image")
    assert isinstance(tower, VisionTransformer)
    images = tower.processor.images([np.zeros((50, 70, 3), np.uint8)])
    with torch.no_grad():
        assert torch.equal(tower(images).pooled, tiny.image(images).pooled)
    save_model(tower, tmp_path / "tower")
    again: Any = from_pretrained(tmp_path / "tower")
    with torch.no_grad():
        assert torch.equal(again(images).tokens, tiny.image(images).tokens)
    text: Any = from_pretrained(tmp_path / "whole.pt", part="text")
    assert torch.equal(text.positions, tiny.text.positions)
    with pytest.raises(ValueError, match="part='audio': expected image or text"):
        from_pretrained(tmp_path / "whole.pt", part="audio")


def test_resolution_of_another_variant_on_request(tmp_path: Path, tiny: Any) -> None:
    path = tmp_path / "whole.pt"
    torch.save({k: t.clone() for k, t in eva_clip.ORIGINAL.save(tiny.state_dict()).items()}, path)
    larger = ["model.image.image_size=64"]
    with pytest.raises(CheckpointMismatch, match="resize=True"):
        create("eva_clip_tiny", pretrained=path, overrides=larger)
    model: Any = create("eva_clip_tiny", pretrained=path, overrides=larger, resize=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_close(model.encode_image(images), tiny.encode_image(images), atol=1e-6, rtol=1e-5)
    assert model.processor.images([np.zeros((9, 9, 3), np.uint8)]).shape[-1] == 64


def test_configurations_of_all_kinds_give_their_nodes() -> None:
    clip = {"embed_dim": 512, "vision_cfg": {"layers": 12, "width": 768, "patch_size": 32}, "text_cfg": {}}
    assert node_of({**clip, "quick_gelu": True})["card"]["name"] == "clip_vit_b32"
    assert node_of({"model_type": "clip", "vision_config": {}})["card"]["name"] == "clip_vit_b32"
    node = declaration("eva_clip_tiny")
    assert node_of(node) == node


@pytest.mark.parametrize("order", [("clip_eva02", "clip_bige"), ("clip_bige", "clip_eva02")])
def test_models_of_different_settings_do_not_influence_each_other(order: tuple[str, str]) -> None:
    cases = {name: golden(name) for name in order}
    models = {name: build_model(original_node(config)).train() for name, (config, _, _) in cases.items()}
    for name, (_, io, state) in cases.items():
        load_into(models[name], state, eva_clip.ORIGINAL)
        models[name](io["image"], io["ids"]).image.sum().backward()
    for name in reversed(order):
        check(models[name], cases[name][1])
