"""A masked student and its teacher: gradients, bad input; tests/parity has the published numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from multimodal_zoo import zoo
from multimodal_zoo.checkpoints.errors import UnknownCheckpoint
from multimodal_zoo.checkpoints.tables import eva_mim_config
from multimodal_zoo.encoders.masked_student import MaskedStudent, scale_gradient
from multimodal_zoo.encoders.patch_teacher import PatchTeacher
from multimodal_zoo.registry import build
from multimodal_zoo.zoo import build_model


def small(**changes: Any) -> MaskedStudent:
    config = {"img_size": 24, "patch_size": 6, "embed_dim": 16, "depth": 2, "num_heads": 2, "predict_feature_dim": 5}
    fields = {**config, "rope": True, "subln": True, "naiveswiglu": True, "mlp_ratio": 2.0, "stop_grad_conv1": True}
    return build_model(eva_mim_config.student_node({**fields, **changes}))  # type: ignore[return-value]


def test_a_scaled_gradient_leaves_the_values_exactly_alone() -> None:
    x = torch.randn(4, 3).requires_grad_()
    scaled = scale_gradient(x, 0.1)
    assert torch.equal(scaled, x)
    scaled.sum().backward()
    assert_close(x.grad, torch.full((4, 3), 0.1))


def test_the_patch_embedding_receives_a_tenth_of_its_gradient() -> None:
    images, mask = torch.randn(2, 3, 24, 24), torch.zeros(2, 16, dtype=torch.bool)
    mask[0, 2:7] = True
    found = {}
    for stop in (True, False):
        student = small(stop_grad_conv1=stop)
        student(images, mask).tokens.square().sum().backward()
        found[stop] = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    for name, gradient in found[False].items():
        scaled = gradient / 10 if name.startswith("image.patches.") else gradient
        assert_close(found[True][name], scaled, atol=1e-7, rtol=1e-4)


def test_what_lies_under_the_mask_is_not_seen() -> None:
    student, mask = small().eval(), torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 5] = True  # row 1, column 1 of patches of 6 pixels
    images = torch.randn(1, 3, 24, 24)
    changed = images.clone()
    changed[:, :, 6:12, 6:12] = 7.0
    assert torch.equal(student(images, mask).tokens, student(changed, mask).tokens)
    changed[:, :, 0, 0] = 7.0
    assert not torch.equal(student(images, mask).tokens, student(changed, mask).tokens)


def test_no_masked_patch_gives_no_prediction_and_zero_gradients() -> None:
    student = small()
    found = student(torch.randn(1, 3, 24, 24), torch.zeros(1, 16, dtype=torch.bool))
    assert found.tokens.shape == (0, 5)
    assert found.grid == (4, 4)
    found.tokens.sum().backward()
    assert all(not bool(p.grad.any()) for p in student.parameters() if p.grad is not None)


def test_a_published_student_exists_on_meta_alone() -> None:
    student = zoo.create("eva_mim_18b", device="meta")
    mask = torch.zeros(2, 256, dtype=torch.bool, device="meta")
    assert sum(p.numel() for p in student.parameters()) == 17_627_879_424
    tokens, _ = student.image.patches(torch.empty(2, 3, 224, 224, device="meta"))
    assert tokens.shape[:2] == mask.shape


def test_bad_students_and_masks_are_named() -> None:
    student = small()
    with pytest.raises(ValueError, match=r"mask has shape \(2, 9\), the student has 2 x 4x4 patches.*masking.grid"):
        student(torch.randn(2, 3, 24, 24), torch.zeros(2, 9, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"Linear without patches, arrange"):
        MaskedStudent(nn.Linear(2, 2), 3)
    with pytest.raises(ValueError, match=r"stem_gradient is 1.5"):
        MaskedStudent(student.image, 3, stem_gradient=1.5)
    student.image.patch_dropout = build({"type": "patch_dropout", "rate": 0.5})
    with pytest.raises(ValueError, match=r"patch_dropout"):
        MaskedStudent(student.image, 3)


def test_a_teacher_is_the_dual_encoders_patches_and_never_trains() -> None:
    model = zoo.create("eva_clip_tiny")
    teacher = PatchTeacher(model.image, model.image_projection)
    images = torch.randn(2, 3, 48, 48)
    found = teacher(images)
    assert torch.equal(found.tokens, model.encode_patches(images))
    assert found.grid == (6, 6)
    assert teacher.width == model.embed_dim
    assert not found.tokens.requires_grad
    assert not teacher.train().training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert_close(model.encode_patches(images, normalize=True).norm(dim=-1), torch.ones(2, 36))


def test_another_librarys_encoder_teaches_at_its_own_size() -> None:
    backbone = {"type": "timm_backbone", "name": "vit_tiny_patch16_224", "width": 192, "image_size": 64}
    teacher = PatchTeacher(build(backbone), image_size=64)
    found = teacher(torch.randn(2, 3, 24, 24))
    assert found.tokens.shape == (2, 16, 192)
    assert found.grid == (4, 4), "the student's grid of patches of 6 pixels"
    with pytest.raises(ValueError, match=r"image_size is 0"):
        PatchTeacher(build(backbone), image_size=0)


def test_configurations_that_mean_something_else_are_refused() -> None:
    with pytest.raises(UnknownCheckpoint, match=r"rel_pos_bias=True"):
        small(rel_pos_bias=True)
    with pytest.raises(UnknownCheckpoint, match=r"no predict_feature_dim"):
        eva_mim_config.student_node({"img_size": 24})
    with pytest.raises(UnknownCheckpoint, match=r"no patch_size, embed_dim"):
        eva_mim_config.student_node({"img_size": 24, "predict_feature_dim": 5})
