"""Any image encoder teaches EVE: ours at any layer, other libraries' at another patch size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from multimodal_zoo import zoo
from multimodal_zoo.config import compose
from multimodal_zoo.data.documents import Document, Image, Text
from multimodal_zoo.data.picture_batches import picture_rows_batch
from multimodal_zoo.encoders.dual_encoder import normed_patches
from multimodal_zoo.encoders.eve_embedding import EncoderEmbedding
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.patch_alignment import AlignedNextToken
from multimodal_zoo.training.agreement import check_agreement
from multimodal_zoo.training.teacher import patch_teacher
from multimodal_zoo.zoo import declaration

#: Encoder -> overrides, the teacher's other keys, the width of its features; the processor counts 4 x 4 patches.
ENCODERS: dict[str, tuple[list[str], dict[str, Any], int]] = {
    "clip_vit_tiny": (["image_size=32", "patches.patch_size=8", "blocks.depth=2"], {"layer": -2}, 256),
    "eva_vit_tiny": (["image_size=32", "blocks.depth=2"], {"layer": None}, 128),
    "residual_tiny": (["image_size=48"], {"image_size": 64}, 192),
    "timm_vit": (["image_size=64"], {"image_size": 64}, 192),
    "open_clip_vit": (["image_size=64"], {"image_size": 64}, 384),
    "transformers_dinov2": (["image_size=56", "options.num_hidden_layers=1"], {"image_size": 56}, 384),
}


def teacher_node(name: str) -> dict[str, Any]:
    """The node of an encoder alone, with random weights."""
    overrides, rest, _ = ENCODERS[name]
    found = compose(None, [f"+encoder@model={name}", *(f"model.{word}" for word in overrides)]).model
    return {"model": OmegaConf.to_container(found, resolve=True), "weights": "random", **rest}


def student(teacher_width: int) -> torch.nn.Module:
    """A small EVE with its aligning layer."""
    words = [
        "model.decoder.width=32",
        "model.decoder.blocks.block.attention.qkv.head_dim=8",
        "model.decoder.blocks.block.mlp.hidden=32",
    ]
    words += [
        "model.vision_embedding.hidden=16",
        f"model.aligner={{type:patch_aligning,width:32,teacher_width:{teacher_width},depth:4}}",
    ]
    return zoo.create("eve_tiny", overrides=words)


def batch_of(model: torch.nn.Module) -> Any:
    """Two pictures, one of them not square, with what the teacher sees."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((32, 32, 3), (20, 32, 3))
    pictures = [torch.randint(0, 256, shape, generator=draw, dtype=torch.uint8).numpy() for shape in shapes]
    documents = [Document([Image(one), Text("what?", "user"), Text("a cat", "assistant")], {}) for one in pictures]
    rows = [[model.processor.sample(one, None, teacher=True)] for one in documents]  # type: ignore[operator,union-attr]
    return picture_rows_batch(rows, model.processor.ids.pad)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("name", ENCODERS)
def test_any_encoder_teaches(name: str) -> None:
    teacher = patch_teacher(teacher_node(name), declaration("eve_tiny"))
    assert teacher.width == ENCODERS[name][2]
    model = student(teacher.width).train()
    objective = AlignedNextToken(NextToken(), teacher)
    objective.check(model)
    check_agreement(objective, model, None)
    batch = batch_of(model)
    assert [box[2:] for box in batch.boxes] == [(4, 4), (3, 4)]
    found = objective(model, batch)
    assert 0 < float(found["alignment_loss"]) < 2
    found["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.aligner.parameters())  # type: ignore[union-attr]
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())


def test_a_teacher_with_other_patches_is_refused_beforehand() -> None:
    node = teacher_node("residual_tiny")
    teacher = patch_teacher({**node, "image_size": 32}, declaration("eve_tiny"))
    with pytest.raises(ValueError, match=r"into 2x2 patches, .*counts 4x4: .*teacher.image_size"):
        check_agreement(AlignedNextToken(NextToken(), teacher), student(192), None)
    with pytest.raises(ValueError, match=r"model.aligner.teacher_width is 24, the teacher's features are 192 wide"):
        AlignedNextToken(NextToken(), teacher).check(student(24))


def test_a_teacher_used_to_other_pictures_is_refused() -> None:
    node = {"model": declaration("clip_tiny"), "weights": "random", "layer": None}
    with pytest.raises(ValueError, match=r"model.processor.images.mean is .*, the teacher was trained with \[0.5"):
        patch_teacher(node, declaration("eve_tiny"))


def test_the_published_teacher_gives_the_last_but_one_layer() -> None:
    """Hugging Face counts the embeddings as the first of its states: -2 is the last but one block."""
    node = declaration(
        "clip_vit_l14_336", ["model.image.blocks.depth=2", "model.text.blocks.depth=1", "model.text.vocab_size=514"]
    )
    recipe = compose("eve/prealign", [])
    assert (recipe.teacher.layer, recipe.teacher.model.image.image_size) == (-2, 336)
    teacher = patch_teacher({"model": node, "weights": "random", "layer": -2}, declaration("eve_7b"))
    images = torch.randn(1, 3, 336, 336)
    tokens, rotation, grid = teacher.encoder.embed(images)  # type: ignore[operator]
    assert grid == (24, 24)
    expected = teacher.encoder.blocks.layers[0](tokens, rotation=rotation)  # type: ignore[union-attr,index,operator]
    assert torch.equal(teacher(images).tokens, expected[:, 1:])


@pytest.mark.parametrize("name", ENCODERS)
def test_an_embedding_layer_around_any_encoder_trains_on_texts_alone(name: str) -> None:
    encoder = zoo.build_model({**teacher_node(name)["model"], "processor": None})
    side = encoder.image_size
    with torch.no_grad():
        _, grid = normed_patches(encoder, torch.zeros(2, 3, side, side))  # type: ignore[arg-type,operator]
    model = student(64)
    model.vision_embedding = EncoderEmbedding(32, encoder, patch=side // grid[0])  # type: ignore[operator]
    ids = torch.arange(6)[None]
    model.train()(ids).square().mean().backward()
    gradients = [p.grad for p in model.vision_embedding.projector.parameters()]  # type: ignore[union-attr]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
