"""Masked image modelling through the command: teacher, run folder, resuming, and a CLIP that starts from the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import multimodal_zoo as zoo
from multimodal_zoo.checkpoints.store import save_model
from multimodal_zoo.commands.train import run
from multimodal_zoo.config import compose
from multimodal_zoo.evaluation.history import read_metrics
from multimodal_zoo.training.teacher import patch_teacher
from multimodal_zoo.zoo import declaration

SMALL = (
    "threads=1",
    "logger=csv",
    "data.batch_size=4",
    "data.train.styles=[twemoji]",
    "data.train.image_size=48",
    "model.image.blocks.depth=2",
    "teacher.model.image.blocks.depth=1",
    "teacher.model.text.blocks.depth=1",
    "trainer.log_every_n_steps=1",
    "trainer.limit_val_batches=1",
    "evaluation=null",
    "callbacks.checkpoint.every_n_steps=2",
)


def train(folder: Path, *overrides: str) -> Path:
    run(compose("eva_clip/mim_tiny", [*SMALL, f"run.dir={folder}", "trainer.max_steps=3", *overrides]))
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "model"
    depth = ["model.image.blocks.depth=1", "model.text.blocks.depth=1"]
    model = zoo.create("eva_clip_tiny", overrides=depth, seed=5)
    model.weights = "trained"  # type: ignore[assignment]
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("student") / "run", f"teacher.weights={teacher}")


def test_a_run_learns_from_images_alone(student: Path) -> None:
    rows = read_metrics(student / "metrics.csv")
    assert [row["step"] for row in rows if "train/loss" in row] == [0, 1, 2]
    assert all(-1 <= row["train/loss"] <= 1 and 0 < row["train/masked_share"] <= 15 / 36 for row in rows)
    saved = load_file(student / "model" / "model.safetensors")
    assert {name.split(".")[0] for name in saved} == {"image", "mask_token", "head"}
    checkpoint = torch.load(student / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not [name for name in checkpoint if "teacher" in name]


def test_a_resumed_run_is_the_uninterrupted_one(student: Path, teacher: Path, tmp_path: Path) -> None:
    (cut,) = (student / "checkpoints").glob("step_*2.ckpt")
    again = train(tmp_path / "run", f"teacher.weights={teacher}", f"resume={cut}")
    ours, theirs = (load_file(place / "model" / "model.safetensors") for place in (again, student))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_student_comes_back_and_encodes(student: Path) -> None:
    model = zoo.from_pretrained(student).eval()
    assert "weights: " in repr(model)
    images = model.processor.images([torch.zeros(48, 48, 3, dtype=torch.uint8).numpy()])
    assert model.image(images).pooled.shape == (1, 128)


def test_the_teacher_is_the_trained_model_without_its_text_tower(teacher: Path) -> None:
    depth = ["model.image.blocks.depth=1", "model.text.blocks.depth=1"]
    node: dict[str, Any] = {"model": declaration("eva_clip_tiny", depth), "weights": str(teacher)}
    found = patch_teacher(node, declaration("eva_mim_tiny"))
    expected = zoo.from_pretrained(teacher)
    images = torch.randn(1, 3, 48, 48)
    assert torch.equal(found(images).tokens, expected.eval().encode_patches(images))
    assert not [name for name, _ in found.named_parameters() if "text" in name]


def test_teachers_that_cannot_teach_are_refused(teacher: Path) -> None:
    student = declaration("eva_mim_tiny")
    with pytest.raises(ValueError, match=r"teacher.weights is null.*'random' for a trial"):
        patch_teacher({"model": declaration("eva_clip_tiny"), "weights": None}, student)
    other = declaration("clip_tiny")  # whose images are normalised otherwise
    with pytest.raises(ValueError, match=r"model.processor.images.mean is .*, the teacher was trained with \[0.5"):
        patch_teacher({"model": other, "weights": "random"}, student)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        patch_teacher({"model": declaration("eva_clip_tiny"), "weights": str(teacher / "nowhere")}, student)


def test_another_librarys_backbone_teaches(tmp_path: Path) -> None:
    backbone = "{type: timm_backbone, name: vit_tiny_patch16_224, width: 192, image_size: 96}"
    whole = compose("eva_clip/mim_tiny", [*SMALL, f"run.dir={tmp_path / 'run'}", "trainer.max_steps=1"])
    from omegaconf import OmegaConf

    OmegaConf.set_struct(whole, False)
    whole.teacher = OmegaConf.create(f"{{model: {backbone}, weights: random, image_size: 96}}")
    whole.model.target_width = 192
    run(whole)
    assert load_file(tmp_path / "run" / "model" / "model.safetensors")["head.weight"].shape == (192, 128)


def test_a_clip_starts_from_the_student(student: Path, tmp_path: Path) -> None:
    overrides = [
        "model.image.blocks.depth=2",
        f"initial_weights.image={student}",
        f"run.dir={tmp_path / 'run'}",
        "trainer.max_steps=1",
        "optim.lr=1.0e-9",
        "threads=1",
        "logger=csv",
        "data.batch_size=4",
        "data.train.styles=[twemoji]",
        "data.train.image_size=48",
        "trainer.limit_val_batches=0",
        "evaluation=null",
        "callbacks.samples=null",
    ]
    run(compose("eva_clip/tiny", overrides))
    clip, before = (load_file(place / "model" / "model.safetensors") for place in (tmp_path / "run", student))
    shared = [name for name in before if name.startswith("image.")]
    assert shared
    for name in shared:
        torch.testing.assert_close(clip[name], before[name], atol=1e-7, rtol=1e-6)
    norm = "image.blocks.layers.0.attention.inner_norm"
    torch.testing.assert_close(clip[f"{norm}.weight"], torch.ones(128))
    torch.testing.assert_close(clip[f"{norm}.bias"], torch.zeros(128), atol=1e-7, rtol=0)
