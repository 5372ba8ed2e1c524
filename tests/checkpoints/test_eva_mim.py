"""EVA-02's masked-image-modelling files into a student, into a CLIP's image tower, and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.errors import CheckpointError, CheckpointMismatch
from multimodal_zoo.checkpoints.store import load_part, save_model
from multimodal_zoo.checkpoints.tables import eva_mim
from multimodal_zoo.checkpoints.tables.eva_mim_config import student_node
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model, declaration
from patch_teachers import TEACHER, teacher_node

CONFIG: dict[str, Any] = {
    "img_size": 48, "patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4, "mlp_ratio": 2.6875,
    "qkv_bias": True, "rope": True, "naiveswiglu": True, "subln": True, "stop_grad_conv1": True,
    "predict_feature_dim": 20,
}  # fmt: skip


@pytest.fixture
def file() -> dict[str, Tensor]:
    """A published file: the student's tensors under their names, with a rotary table per block."""
    state = eva_mim.STUDENT.save(build_model(student_node(CONFIG)).state_dict())
    return {**state, "blocks.3.attn.rope.freqs_cos": torch.rand(6, 6, 32), "rope.freqs_sin": torch.rand(36, 32)}


def test_a_students_tensors_come_back(file) -> None:
    assert file["cls_token"].shape == file["mask_token"].shape == (1, 1, 128)
    assert file["pos_embed"].shape == (1, 37, 128)
    assert "blocks.5.mlp.w3.weight" in file
    assert "blocks.0.attn.q_bias" in file
    student = build_model(student_node(CONFIG), seed=4)
    student.load_state_dict(eva_mim.STUDENT.load(file))
    again = eva_mim.STUDENT.save(student.state_dict())
    assert again.keys() == {name for name in file if "freqs" not in name}
    assert all(torch.equal(again[name], file[name]) for name in again)


def test_a_clip_tower_starts_from_a_student_with_identity_norms(file) -> None:
    clip = build_model(declaration("eva_clip_tiny", ["model.image.rotary.pretrained_side=6"]))
    tower = {n.removeprefix("image."): t for n, t in eva_mim.CLIP_IMAGE.load(file).items()}
    clip.image.load_state_dict(tower)
    norm = clip.image.blocks.layers[2].attention.inner_norm
    assert bool((norm.weight == 1).all())
    assert bool((norm.bias == 0).all())
    student = build_model(student_node(CONFIG))
    student.load_state_dict(eva_mim.STUDENT.load(file))
    ours = eva_mim.add_identity_norms(student.image.state_dict(), clip.image.state_dict())
    assert ours.keys() == tower.keys()
    assert all(torch.equal(ours[name], tower[name]) for name in tower)
    whole = {f"image.{name}": tensor for name, tensor in tower.items()}
    back = eva_mim.CLIP_IMAGE.save(whole)
    assert back.keys() == {n for n in file if "freqs" not in n and n != "mask_token" and not n.startswith("lm_head")}
    assert_close(back["blocks.1.attn.proj.bias"], file["blocks.1.attn.proj.bias"])


def test_a_trained_inner_norm_has_no_place_in_a_students_file(file) -> None:
    tower = eva_mim.CLIP_IMAGE.load(file)
    tower["image.blocks.layers.1.attention.inner_norm.weight"] = torch.full((128,), 1.5)
    with pytest.raises(CheckpointError, match=r"inner_norm.weight is trained"):
        eva_mim.CLIP_IMAGE.save(tower)


def test_unknown_names_are_listed(file) -> None:
    with pytest.raises(CheckpointError, match=r"decoder.weight"):
        eva_mim.STUDENT.load({**file, "decoder.weight": torch.zeros(1)})


def test_a_published_file_fills_a_student_and_a_clips_image_tower(file, tmp_path) -> None:
    path = tmp_path / "eva02_mim.pt"
    torch.save({"model": file}, path)
    changes = ["model.image.rotary.pretrained_side=6", "model.target_width=20"]
    student = zoo.create("eva_mim_tiny", pretrained=path, overrides=changes)
    assert torch.equal(student.mask_token, file["mask_token"].flatten())
    clip = zoo.create("eva_clip_tiny", overrides=changes[:1])
    text = clip.text.positions.clone()
    accounting = load_part(clip, "image", path)
    assert {"mask_token", "lm_head.weight", "lm_head.bias"} <= set(accounting.left_out)
    assert torch.equal(clip.image.blocks.layers[0].attention.out.weight, file["blocks.0.attn.proj.weight"])
    assert bool((clip.image.blocks.layers[0].attention.inner_norm.weight == 1).all())
    assert torch.equal(clip.text.positions, text)


def test_a_published_file_of_any_size_is_read_with_the_arguments_of_its_pretraining(file, tmp_path) -> None:
    torch.save({"model": file}, tmp_path / "eva02_mim.pt")
    (tmp_path / "arguments.json").write_text(json.dumps(CONFIG))
    for config in (CONFIG, tmp_path / "arguments.json"):
        student = zoo.from_pretrained(tmp_path / "eva02_mim.pt", config=config)
        assert student.config["target_width"] == CONFIG["predict_feature_dim"]
        assert torch.equal(student.head.weight, file["lm_head.weight"])


def test_a_student_of_ours_starts_a_clips_image_tower(tmp_path) -> None:
    student = zoo.create("eva_mim_tiny", seed=3)
    save_model(student, tmp_path / "student")
    clip = zoo.create("eva_clip_tiny")
    accounting = load_part(clip, "image", tmp_path / "student")
    assert set(accounting.left_out) == {"mask_token", "head.weight", "head.bias"}
    assert bool((clip.image.blocks.layers[0].attention.inner_norm.weight == 1).all())
    for name, tensor in student.image.state_dict().items():
        assert torch.equal(clip.image.state_dict()[name], tensor), name
    with pytest.raises(CheckpointMismatch, match=r"misshapen"):
        load_part(zoo.create("eva_clip_tiny", overrides=["model.image.width=64"]), "image", tmp_path / "student")


@pytest.mark.parametrize("extra", [{}, {"init_values": 0.1, "intp_freq": True, "pt_hw_seq_len": 16}])
def test_a_teacher_with_inner_norms_takes_a_clip_towers_tensors(extra: dict[str, Any]) -> None:
    """A later EVA-CLIP as teacher has norms over the heads, which no student has."""
    fields = {key: value for key, value in CONFIG.items() if key not in ("stop_grad_conv1", "predict_feature_dim")}
    teacher = build(teacher_node({**fields, **extra, "num_classes": 20}))
    assert teacher.encoder.rotary.pretrained_side == extra.get("pt_hw_seq_len", 6)
    state = TEACHER.save(teacher.state_dict())
    assert ("visual.blocks.5.gamma_2" in state) is bool(extra)
    again = TEACHER.load({**state, "visual.blocks.0.attn.inner_attn_ln.bias": torch.full((128,), 3.0)})
    assert again.keys() == teacher.state_dict().keys()
    assert bool((again["encoder.blocks.layers.0.attention.inner_norm.bias"] == 3).all())
