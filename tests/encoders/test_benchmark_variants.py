"""CLIP-benchmark's and DeCLIP's variants, narrowed: each method with each published tower takes a step of its loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from multimodal_zoo import zoo
from multimodal_zoo.nn.masks import Causal
from multimodal_zoo.objectives.batch import MultiViewBatch
from multimodal_zoo.registry import build

METHODS = ("clip", "slip", "filip", "declip", "defilip")
BLOCK = "blocks.block"
TEXT = ["text.width=32", "text.vocab_size=600", "text.context_length=8", "text.blocks.depth=2"]
TEXT += [
    f"text.{BLOCK}.attention.qkv.heads=1",
    f"text.{BLOCK}.attention.qkv.head_dim=32",
    f"text.{BLOCK}.mlp.hidden=32",
]
TOWERS = {
    "vit_b32": [
        "image.width=32", "image.image_size=64", "image.blocks.depth=2", f"image.{BLOCK}.attention.qkv.heads=1",
        f"image.{BLOCK}.attention.qkv.head_dim=32", f"image.{BLOCK}.mlp.hidden=32", "embed_dim=16",
    ],
    "r50": ["image.stem_width=4", "image.depths=[1,1,2,1]", "image.image_size=64", "embed_dim=16"],
}  # fmt: skip
#: A ResNet's pool, where its features are the embeddings and where they are what SLIP's head reads.
POOLS = {
    "slip": ["image.width=128", "image.pool.width=128", "image.pool.heads=4", "image.pool.grid=2"],
    "others": [
        "image.width=16", "image.pool.grid=2", "image.pool.attention.width=128", "image.pool.attention.heads=4",
        "image.pool.attention.grid=2",
    ],
}  # fmt: skip
HEADS = {
    "clip": [],
    "slip": ["simclr.hidden=16", "simclr.output=8"],
    "filip": ["token_wise.embed_dim=8"],
    "declip": ["simsiam.hidden=16", "simsiam.bottleneck=8"],
    "defilip": ["simsiam.hidden=16", "simsiam.bottleneck=8", "token_wise.embed_dim=8"],
}


def narrowed(method: str, tower: str, *more: str) -> nn.Module:
    values = [*TEXT, *TOWERS[tower], *(f"heads.{value}" for value in HEADS[method])]
    if tower == "r50":
        values += POOLS["slip" if method == "slip" else "others"]
        values += ["heads.token_wise.image_width=128"] * (method in ("filip", "defilip"))
    return zoo.create(f"{method}_{tower}_yfcc", overrides=[f"model.{value}" for value in (*values, *more)])


def batch(size: int = 64) -> MultiViewBatch:
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.randn(4, 3, size, size, generator=generator) for name in ("plain", "first", "second")}
    ids = torch.tensor([[598, 7, 8, 599], [598, 9, 599, 0], [598, 599, 0, 0], [598, 4, 5, 599]])
    labels = torch.full_like(ids, -100)
    labels[0, 1] = 11
    return MultiViewBatch(
        images, dict.fromkeys(("plain", "masked", "augmented"), ids), {"masked": labels}, list("abcd")
    )


def loss_of(model: nn.Module, method: str) -> torch.Tensor:
    config = zoo.compose(None, [f"+objective={method}", f"+model.embed_dim={model.embed_dim}"]).objective
    if "nearest_neighbour" in config.parts:
        config.parts.nearest_neighbour.queue.size = 8
    objective = build(config, path="objective")
    objective.check(model)
    return objective(model, batch(model.image.image_size))["loss"]


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_the_methods_loss_reaches_everything_that_trains(method: str, tower: str) -> None:
    model = narrowed(method, tower).train()
    loss = loss_of(model, method)
    assert loss.isfinite()
    loss.backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None and p.requires_grad}
    expected = set()
    if tower == "r50" and method != "slip":  # the published layer for maps of other sizes
        expected = {"image.pool.mean.output.weight", "image.pool.mean.output.bias"}
    if method == "filip":  # its global embeddings never train, its masked-word head is idle
        parts = ("projection", "pool.", "masked_words")
        expected |= {name for name in idle if any(part in name for part in parts)} | {"logit_scale.weight"}
    assert idle == expected
    if tower == "vit_b32":
        assert not model.image.patches.weight.requires_grad


def test_a_curtailed_text_tower_is_the_first_blocks() -> None:
    whole, short = (narrowed("clip", "vit_b32", f"text.blocks.depth={depth}").eval() for depth in (3, 1))
    state = whole.text.state_dict()
    short.text.load_state_dict({name: state[name] for name in short.text.state_dict()})
    ids = torch.tensor([[598, 7, 8, 599], [598, 9, 599, 0]])
    (stream,) = whole.text.blocks.intermediates(whole.text.embed(ids), [0], mask=Causal())
    assert_close(short.text(ids).tokens, whole.text.norm(stream))
    assert_close(short.text.pooled(ids), short.text(ids).pooled, atol=1e-5, rtol=1e-5)
    assert len(short.text.blocks.layers) == 1


def test_other_towers_fit_the_variants() -> None:
    size = "model.image.image_size=32"
    b16 = zoo.create("declip_vit_b32_yfcc", device="meta", overrides=["encoder@model.image=declip_vit_b16"])
    assert sum(p.numel() for p in b16.image.parameters()) == 85_799_424  # the published tower without its projection
    wide = zoo.create("declip_r50_yfcc", device="meta", overrides=["encoder@model.image=declip_resnet101"])
    assert [len(stage) for stage in wide.image.stages] == [3, 4, 23, 3]
    plain = zoo.create("clip_tiny", device="meta", overrides=["encoder@model.image=declip_resnet50"])
    assert plain.image_projection.weight.shape == (256, 1024), "with a projection of its own in any other model"
    names = ["model.image.name=regnety_002", "model.image.width=368", size, *(f"model.{value}" for value in TEXT)]
    heads = [f"model.heads.{value}" for value in HEADS["declip"]]
    model = zoo.create("declip_88m_regnety_64gf", overrides=[*names, *heads, "model.embed_dim=16"]).train()
    loss_of(model, "declip").backward()
    assert next(model.image.parameters()).grad is not None


def test_a_bert_takes_the_text_slot_and_masked_words_train_it() -> None:
    sizes = ["width=32", "vocab_size=600", "context_length=8", "options.num_hidden_layers=1"]
    sizes += ["options.num_attention_heads=2", "options.intermediate_size=32"]
    overrides = ["encoder@model.text=transformers_bert", *(f"model.text.{value}" for value in sizes)]
    node = zoo.declaration("declip_tiny", [*overrides, *(f"model.heads.{value}" for value in HEADS["declip"])])
    node["processor"]["texts"] = None
    model = zoo.build_model(node).train()
    loss_of(model, "declip").backward()
    assert model.heads["masked_words"].weight.grad.any()
    assert not [name for name, p in model.text.named_parameters() if p.grad is None]


@pytest.mark.parametrize("name", ["clip_tiny_views", "slip_tiny", "filip_tiny", "declip_tiny", "defilip_tiny"])
def test_the_tiny_models_have_clip_tinys_towers_and_a_mask_word(name: str) -> None:
    model, plain = zoo.create(name), zoo.create("clip_tiny")
    tokenizer = model.processor.tokenizer
    assert (tokenizer.mask_id, tokenizer.start_id, tokenizer.end_id, tokenizer.vocab_size) == (4529, 4530, 4531, 4532)
    assert tokenizer.kept == plain.processor.tokenizer.kept, "no word was lost for it"
    assert model.text.vocab_size == 4532
    for part in ("image", "image_projection", "text_projection"):
        ours, theirs = getattr(model, part).state_dict(), getattr(plain, part).state_dict()
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize("tower", TOWERS)
def test_a_trained_variant_is_read_back_with_its_statistics(tower: str, tmp_path) -> None:
    from multimodal_zoo.checkpoints.store import save_model

    model = narrowed("declip", tower).train()
    loss_of(model, "declip")  # moves the running statistics
    save_model(model.eval(), tmp_path / "model")
    again = zoo.from_pretrained(tmp_path / "model")
    images = batch().images["plain"]
    assert_close(again.encode_image(images), model.encode_image(images))
    inputs = images.flatten(1)[:, :16]
    assert_close(again.heads["simsiam"](inputs)[1], model.heads["simsiam"](inputs)[1])
