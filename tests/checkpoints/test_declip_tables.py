"""Files of DeCLIP's repository: names, shapes, what old files lack, and vocabularies that do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo import zoo
from multimodal_zoo.catalogue import list_models
from multimodal_zoo.checkpoints.convert import write_published
from multimodal_zoo.checkpoints.errors import CheckpointMismatch, UnknownCheckpoint
from multimodal_zoo.checkpoints.guess import guess_variant, guess_variants, variant_on_meta
from multimodal_zoo.checkpoints.load import account
from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.store import recognise
from multimodal_zoo.checkpoints.tables import declip, declip_write, detect_naming
from multimodal_zoo.checkpoints.tables.declip_config import original_node

VIT = {"input_resolution": 32, "patch_size": 16, "width": 128, "layers": 2, "heads": 2, "embed_dim": 24}
RESNET = {"input_resolution": 64, "width": 8, "layers": [1, 2, 1, 1], "heads": 4, "embed_dim": 24, "use_sync_bn": False}
TEXT = {
    "embed_dim": 24, "context_length": 12, "transformer_width": 64, "transformer_heads": 1, "transformer_layers": 2,
    "vocab_size": 600, "text_model_utils": {"random": False, "freeze": False}, "text_encode_type": "Transformer",
    "positional_embedding_flag": True, "checkpoint": False,
}  # fmt: skip
TOKENS = {"dense_embed_dim": 16, "dense_mapping_language": 64}
HEADS: dict[str, dict[str, Any]] = {
    "clip": {},
    "slip": {"feature_dim": 128, "sim_dim": 16},
    "filip": {**TOKENS, "dense_mapping_image": 128, "select_topk": True},
    "declip": {"feature_dim": 24, "nn_size": 8},
    "defilip": {"feature_dim": 24, **TOKENS, "dense_mapping_image": 128, "dense_aug": False},
}


def tiny(image: dict[str, Any] = VIT, **clip: Any) -> dict[str, Any]:
    return {"image_encode": image, "text_encode": TEXT, "clip": {"use_allgather": True, **clip}}


def table_of(model: nn.Module) -> Naming:
    slip, resnet = "simclr" in model.heads, hasattr(model.image, "stages")
    return declip.ALL[2 * slip + resnet]


def published(model: nn.Module) -> dict[str, Tensor]:
    return {f"module.{name}": tensor for name, tensor in table_of(model).save(model.state_dict()).items()}


def written(model: nn.Module, file: Path) -> Path:
    """A file as the repository's solver writes it."""
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    torch.save({"model": published(model), "optimizer": optimizer, "last_iter": 7, "ema": {"x": torch.zeros(1)}}, file)
    return file


def encoded(model: nn.Module) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    size = model.image.image_size
    images = torch.randn(2, 3, size, size, generator=generator)
    ids = torch.tensor([[598, 5, 0, 7, 599], [598, 9, 599, 0, 0]])
    with torch.no_grad():
        return model.encode_image(images), model.encode_text(ids)


@pytest.mark.parametrize("variant", ["slip_r50_yfcc", "filip_r50_yfcc", "defilip_r50_yfcc"])  # no manifests exist
def test_names_and_shapes_are_found_again_without_a_manifest(variant: str) -> None:
    model = variant_on_meta(variant)
    naming = table_of(model)
    state = naming.save(model.state_dict())
    assert detect_naming(state) is naming
    assert state["logit_scale"].shape == (1,)
    account(model, state, naming).require(variant)
    assert guess_variants(state, naming) == [variant]


def test_variants_that_differ_in_their_training_only_are_all_named() -> None:
    state = declip.RESNET.save(variant_on_meta("declip_r50_yfcc").state_dict())
    assert guess_variants(state, declip.RESNET) == ["declip_88m_r50", "declip_r50_yfcc"]
    assert guess_variant(state, declip.RESNET) == "declip_88m_r50"
    assert guess_variants({**state, "more": torch.zeros(1)}, declip.RESNET) == []


@pytest.mark.parametrize("method", HEADS)
def test_a_file_alone_is_enough(method: str, tmp_path: Path) -> None:
    model = zoo.build_model(original_node(tiny(**HEADS[method]))).eval()
    file = written(model, tmp_path / "ckpt.pth.tar")
    if method == "declip":  # as old versions of torch wrote it
        content = torch.load(file, weights_only=True)
        content["model"] = {k: v for k, v in content["model"].items() if not k.endswith("num_batches_tracked")}
        torch.save(content, file)
    found = zoo.from_pretrained(file)
    assert list(found.heads) == list(model.heads)
    assert type(found.logit_scale) is type(model.logit_scale)
    for name, tensor in model.state_dict().items():
        assert_close(found.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
    for ours, theirs in zip(encoded(found), encoded(model), strict=True):
        assert_close(ours, theirs)
    assert found.processor.texts(["a cat"])[0, 0] == 598, "start is the last but one id"
    assert not found.image.patches.weight.requires_grad


def test_a_resnets_file_needs_its_configuration_only_where_shapes_do_not_say(tmp_path: Path) -> None:
    config = tiny({**RESNET, "heads": 8})
    model = zoo.build_model(original_node(config)).eval()
    file = written(model, tmp_path / "ckpt.pth.tar")
    found = zoo.from_pretrained(file, config=config)
    assert [len(stage) for stage in found.image.stages] == [1, 2, 1, 1]
    assert found.image.pool.attention.qkv.heads == 8
    # 2-cell maps: the mean serves, whose published layer takes 2048 channels
    with pytest.raises(ValueError, match=r"expected \(batch, 2048"):
        found.encode_image(torch.zeros(1, 3, 64, 64))
    assert zoo.from_pretrained(file).image.pool.attention.qkv.heads == 4, "256 channels in heads of 64"


def test_a_resnets_file_may_lack_the_layer_that_training_never_reached(tmp_path: Path, caplog: Any) -> None:
    model = zoo.build_model(original_node(tiny({**RESNET, "input_resolution": 224}))).eval()
    state = {name: tensor for name, tensor in published(model).items() if not name.startswith("module.visual.fc.")}
    torch.save({"model": state}, tmp_path / "ckpt.pth.tar")
    found = zoo.from_pretrained(tmp_path / "ckpt.pth.tar")
    assert not found.image.pool.mean.output.weight.any()
    assert "lacks tensors, which were filled in: 2\n  image.pool.mean.output.weight" in caplog.text
    for ours, theirs in zip(encoded(found), encoded(model), strict=True):
        assert_close(ours, theirs)


def test_a_head_that_a_file_lacks_is_left_out_of_the_model(tmp_path: Path) -> None:
    model = zoo.build_model(original_node(tiny(**HEADS["declip"]))).eval()
    file = written(model, tmp_path / "ckpt.pth.tar")
    content = torch.load(file, weights_only=True)["model"]
    for wanted, dropped in ((["simsiam"], "text_label_predictor"), ([], "pred|proj")):
        content = {k: v for k, v in content.items() if not any(k.startswith(f"module.{d}") for d in dropped.split("|"))}
        torch.save({"model": content}, file)
        found = zoo.from_pretrained(file)
        assert list(found.heads) == wanted
        assert_close(encoded(found)[1], encoded(model)[1])


@pytest.mark.parametrize("variant", [*list_models("*_yfcc"), "declip_88m_vit_b32"])
def test_the_configurations_of_the_variants_come_back(variant: str) -> None:
    node = zoo.declaration(variant)
    again = original_node(declip_write.original_config(node))
    assert {key: again[key] for key in again if key != "card"} == {key: node[key] for key in node if key != "card"}


def test_a_model_is_written_as_the_repository_has_it(tmp_path: Path) -> None:
    config = tiny({**VIT, "heads": 4}, **HEADS["defilip"])
    model = zoo.build_model(original_node(config)).eval()
    write_published(model, tmp_path / "out", "declip")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["declip.json", "model.safetensors"]
    found = zoo.from_pretrained(tmp_path / "out")
    assert found.image.blocks.layers[0].attention.qkv.heads == 4, "which no shape says"
    for ours, theirs in zip(encoded(found), encoded(model), strict=True):
        assert_close(ours, theirs)
    with pytest.raises(UnknownCheckpoint, match=r"no model of DeCLIP's repository.* can be written as ours"):
        write_published(zoo.create("clip_tiny", device="meta"), tmp_path / "no", "declip")
    other = zoo.create("declip_vit_b32_yfcc", device="meta", overrides=["model.heads.simsiam.hidden=8"])
    with pytest.raises(UnknownCheckpoint, match=r"no key for model\.heads\.simsiam\.hidden=8"):
        write_published(other, tmp_path / "no", "declip")


def test_one_tower_can_be_taken_from_a_file(tmp_path: Path) -> None:
    model = zoo.build_model(original_node(tiny(**HEADS["declip"]))).eval()
    tower = zoo.from_pretrained(written(model, tmp_path / "ckpt.pth.tar"), part="image")
    images = torch.randn(1, 3, 32, 32)
    assert_close(tower(images).tokens, model.image(images).tokens)


def test_openais_vocabulary_is_refused_with_the_way_out(tmp_path: Path) -> None:
    config = tiny()
    config["text_encode"] = {**TEXT, "vocab_size": 49408}
    file = written(zoo.build_model(original_node(config)), tmp_path / "ckpt.pth.tar")
    with pytest.raises(UnknownCheckpoint, match=r"49408 rows is OpenAI's.* insert a row at 49406"):
        zoo.from_pretrained(file)
    config["text_encode"] = {**TEXT, "vocab_size": 49409}
    with pytest.raises(CheckpointMismatch, match=r"(?s)token_embedding.*49408 rows.* insert a row at 49406"):
        zoo.from_pretrained(file, config=config)


def test_a_file_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    model = zoo.build_model(original_node(tiny(**HEADS["declip"])))
    state = published(model)
    del state["module.projector.bn2.running_var"]
    torch.save({"model": state}, tmp_path / "ckpt.pth.tar")
    with pytest.raises(CheckpointMismatch, match=r"heads\.simsiam\.projector\.norm2\.running_var"):
        zoo.from_pretrained(tmp_path / "ckpt.pth.tar")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_encode": {**VIT, "drop": 0.1}}, "image_encode: not understood: drop"),
        ({"image_encode": {**RESNET, "use_sync_bn": True}}, "trainer.sync_batchnorm"),
        ({"text_encode": {**TEXT, "text_encode_type": "Bert"}}, "text_encode_type='Bert'"),
        ({"text_encode": {**TEXT, "text_model_utils": {"freeze": True}}}, "text_model_utils.freeze=True"),
        ({"text_encode": {**TEXT, "embed_dim": 8}}, "embed_dim is 24 for images and 8 for texts"),
        ({"clip": {"mean": 1}}, "clip: not understood: mean"),
        ({"optimizer": {}}, "model: not understood: optimizer"),
    ],
)
def test_configurations_that_no_part_serves_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownCheckpoint, match=message):
        recognise(Path(__file__).parent, {**tiny(), **change})
