from __future__ import annotations

import json
import re
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from multimodal_zoo.checkpoints.errors import (
    CheckpointMismatch,
    CorruptCheckpoint,
    MissingCheckpoint,
    UnknownCheckpoint,
)
from multimodal_zoo.checkpoints.store import load_weights, recognise, save_model
from multimodal_zoo.checkpoints.tables import clip, clip_config
from multimodal_zoo.registry import build

OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": 50, "width": 64, "heads": 1, "layers": 2},
}


def model_of(node, device: str = "cpu") -> nn.Module:
    with torch.device(device):
        model = build({k: v for k, v in node.items() if k not in ("processor", "card")}, path="model")
    model.config = node
    return model


@pytest.fixture
def node():
    return clip_config.sizes_from_open_clip(OPEN_CLIP).node()


@pytest.fixture
def model(node):
    return model_of(node)


def same_weights(first: nn.Module, second: nn.Module) -> None:
    expected = second.state_dict()
    assert set(first.state_dict()) == set(expected)
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(tensor, expected[name].to(tensor.dtype), rtol=0, atol=0)


def reread(path, config=None, average: bool = True):
    source = recognise(path, config, average=average)
    receiver = model_of(source.config, "meta")
    assert load_weights(receiver, source).exact
    return source, receiver


def test_saved_models_come_back(tmp_path, model, node):
    model.variant, model.weights = "my_clip", "trained"
    folder = save_model(model, tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml", "model.safetensors"]
    for path in (folder, folder / "model.safetensors"):
        source, again = reread(path)
        assert (source.variant, source.naming, source.config) == ("my_clip", None, node)
        same_weights(again, model)
    other = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_model(model, folder, other)  # replaces
    torch.testing.assert_close(reread(folder)[1].state_dict()["text.positions"], other["text.positions"])
    with pytest.raises(CheckpointMismatch, match="missing"):
        save_model(model, tmp_path / "never", {"text.positions": other["text.positions"]})
    assert not (tmp_path / "never").exists()
    del model.config
    with pytest.raises(ValueError, match=r"model\.config"):
        save_model(model, tmp_path / "never")


def test_training_runs_come_back(tmp_path, model, node):
    average = {name: tensor * 2 for name, tensor in model.state_dict().items()}
    content = {
        "pytorch-lightning_version": "2.6.0",
        "global_step": 7,
        "hyper_parameters": {"config": {"seed": 0, "model": node}},
        "state_dict": {**{f"model.{n}": t for n, t in model.state_dict().items()}, "objective.queue": torch.ones(3)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": []}],
        "ema": {"updates": 3, "weights": average},
    }
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(content, folder / "step_00000007.ckpt")
    (folder / "last.ckpt").symlink_to("step_00000007.ckpt")
    for path in (tmp_path / "run", folder / "last.ckpt"):
        source, receiver = reread(path)
        assert source.average is True
        same_weights(receiver, model_with(node, average))
        source, receiver = reread(path, average=False)
        assert source.average is False
        same_weights(receiver, model)
    del content["ema"]
    torch.save(content, folder / "plain.ckpt")
    same_weights(reread(folder / "plain.ckpt")[1], model)
    save_model(model, tmp_path / "run" / "model")
    assert reread(tmp_path / "run")[0].average is None  # the exported model goes first
    content["hyper_parameters"] = {}
    torch.save(content, folder / "plain.ckpt")
    with pytest.raises(UnknownCheckpoint, match="not of this library"):
        recognise(folder / "plain.ckpt")


def model_with(node, state) -> nn.Module:
    model = model_of(node)
    model.load_state_dict(state)
    return model


def test_open_clip_folders_come_back(tmp_path, model, node):
    save_file(
        {k: t.contiguous() for k, t in clip.OPENAI.save(model.state_dict()).items()},
        tmp_path / "open_clip_model.safetensors",
    )
    preprocess = {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    config = {"model_cfg": OPEN_CLIP, "preprocess_cfg": {**preprocess, "size": [32, 32]}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "open_clip_model.safetensors"):
        source, receiver = reread(path)
        same_weights(receiver, model)
        images = source.config["processor"]["images"]
        assert images["mean"] == [0.5] * 3
        assert (images["size"], images["resize"], images["interpolation"]) == (32, "squash", "bilinear")
        assert source.config["image"] == node["image"]


def test_hugging_face_folders_come_back(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    common = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 48}
    text = {"vocab_size": 50, "max_position_embeddings": 12, "eos_token_id": 49, "bos_token_id": 48}
    config = CLIPConfig(
        projection_dim=24,
        vision_config={"image_size": 32, "patch_size": 8, "hidden_act": "gelu", **common},
        text_config={"hidden_act": "gelu", **text, **common},
    )
    theirs = CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "sharded", max_shard_size="20kB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    images, ids = torch.randn(2, 3, 32, 32), torch.tensor([[48, 3, 49], [48, 4, 49]])
    for folder in ("whole", "sharded"):
        (tmp_path / folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3]}))
        source, receiver = reread(tmp_path / folder)
        assert source.config["processor"]["images"]["mean"] == [0.1, 0.2, 0.3]
        assert source.config["image"]["blocks"]["block"]["mlp"]["activation"] == "gelu"
        with torch.no_grad():
            expected = theirs(input_ids=ids, pixel_values=images)
            found = receiver.eval()(images, ids)
        torch.testing.assert_close(found.image, expected.image_embeds, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(found.text, expected.text_embeds, atol=2e-5, rtol=1e-5)


def openai_state(model: nn.Module) -> dict[str, torch.Tensor]:
    extras = {"input_resolution": 32, "context_length": 12, "vocab_size": 50}
    return {**clip.OPENAI.save(model.half().state_dict()), **{k: torch.tensor(v) for k, v in extras.items()}}


def test_openai_files_come_back(tmp_path, model):
    torch.save(openai_state(model), tmp_path / "ViT.pt")
    source, receiver = reread(tmp_path / "ViT.pt")
    assert source.kind == "OpenAI's CLIP file"
    assert source.config["text"]["blocks"]["block"]["mlp"]["activation"] == "quick_gelu"
    assert all(parameter.dtype == torch.float32 for parameter in receiver.parameters())
    same_weights(receiver, model.float())


def test_openai_archives_come_back(tmp_path, model):
    class Holder(nn.Module):
        def forward(self, x):
            return x

    def put(root: nn.Module, name: str, tensor: torch.Tensor) -> None:
        *path, leaf = name.split(".")
        for part in path:
            if part not in root._modules:
                root.add_module(part, Holder())
            root = root._modules[part]
        root.register_buffer(leaf, tensor)

    archive = Holder()
    for name, tensor in openai_state(model).items():
        put(archive, name, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(archive, torch.ones(1)), tmp_path / "ViT-B-32.pt")
    same_weights(reread(tmp_path / "ViT-B-32.pt")[1], model.float())


def test_bare_files_need_a_configuration(tmp_path, model, node):
    theirs = clip.OPENAI.save(model.state_dict())
    torch.save({"epoch": 1, "state_dict": {f"module.{k}": v for k, v in theirs.items()}}, tmp_path / "epoch_1.pt")
    with pytest.raises(UnknownCheckpoint, match=r"give config=VARIANT"):
        recognise(tmp_path / "epoch_1.pt")
    source, receiver = reread(tmp_path / "epoch_1.pt", node)
    assert source.naming is clip.OPENAI
    same_weights(receiver, model)
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    with pytest.raises(UnknownCheckpoint, match="looked for"):
        recognise(tmp_path / "ours.pt")
    same_weights(reread(tmp_path / "ours.pt", node)[1], model)
    copied = model_of(node)
    load_weights(copied, tmp_path / "epoch_1.pt")  # a path, into a model with memory
    same_weights(copied, model)


def test_half_of_the_names_wrong_is_a_listing(tmp_path, model, node):
    theirs = clip.OPENAI.save(model.state_dict())
    theirs["transformer.resblocks.0.attn.rel_bias"] = theirs.pop("transformer.resblocks.0.attn.in_proj_bias")
    torch.save(theirs, tmp_path / "x.pt")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match=re.escape(str(tmp_path / "x.pt"))) as caught:
        load_weights(model, tmp_path / "x.pt")
    assert caught.value.unexpected == ("transformer.resblocks.0.attn.rel_bias",)
    assert caught.value.missing == ("text.blocks.layers.0.attention.qkv.bias",)
    same_weights(model, model_with(node, before))


def test_unknown_content_says_what_was_looked_for(tmp_path):
    (tmp_path / "empty").mkdir()
    for content in ({}, {"config.json": '{"model_type": "bert"}'}, {"config.json": "{"}):
        for name, text in content.items():
            (tmp_path / "empty" / name).write_text(text)
        with pytest.raises((UnknownCheckpoint, CorruptCheckpoint), match=r"looked for|not valid JSON"):
            recognise(tmp_path / "empty")
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    with pytest.raises(UnknownCheckpoint, match=r"(?s)save_model.*Hugging Face.*openai_clip.*1 tensors.*: a"):
        recognise(tmp_path / "x.pt")
    with pytest.raises(MissingCheckpoint):
        recognise(tmp_path / "nothing")
