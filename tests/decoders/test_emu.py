"""Emu and Emu2: rows alone, padded and packed; gradients; pictures of several sizes; other types; bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from emu_documents import (
    CLOSE,
    COUNTS,
    OPEN,
    PAD,
    PICTURE,
    QUERIES,
    SIDE,
    TOWER,
    VOCAB,
    WIDTH,
    as_type,
    causal_former,
    documents,
    node,
    packed,
    padded,
    pictures_of,
    prompts_of,
    sample,
    tiny,
)
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from multimodal_zoo.encoders.image_tokens import image_tokens
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.nn.counted_images import CountedImages
from multimodal_zoo.objectives.next_element import NextElement
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.registry import build

SYSTEMS = pytest.mark.parametrize("system", ["emu", "emu2"])


@SYSTEMS
def test_padded_and_packed_rows_are_those_alone(system: str) -> None:
    model, rows = tiny(system), documents(system)
    alone = [model(**padded([one]).inputs())[0] for one in rows]
    for arrangement in ([[one] for one in rows], [rows[:3], rows[3:5], rows[5:]], [rows]):
        batch = packed(arrangement)
        found = model(**batch.inputs())
        parts = [
            found[number, batch.documents[number] == place]
            for number, row in enumerate(arrangement)
            for place in range(len(row))
        ]
        assert_close(parts, alone, atol=1e-4, rtol=1e-4)


@SYSTEMS
def test_a_row_alone_needs_no_positions_or_documents(system: str) -> None:
    model, batch = tiny(system), padded([sample(system, 3, PICTURE, 2)])
    assert_close(model(batch.ids, vision=batch.vision, images=batch.images), model(**batch.inputs()))


@SYSTEMS
def test_visual_embeddings_stand_where_they_should(system: str) -> None:
    """Words keep their embeddings, and so do the tokens around a picture."""
    model, one = tiny(system), sample(system, 2, PICTURE, 1, PICTURE)
    assert one.images is not None
    count, words = COUNTS[system][0], model.decoder.token_embedding.weight
    embedded = model.embed(one.ids[None], one.vision[None], model.encode(one.images))[0]
    first, second = (model.project(model.encode(CountedImages(p[None], (count,)))) for p in one.images.pixels)
    brackets = words[[OPEN]], words[[CLOSE]]
    expected = (words[one.ids[:2]], brackets[0], first, brackets[1], words[one.ids[[4 + count]]], brackets[0], second)
    assert_close(embedded, torch.cat((*expected, brackets[1])))


@SYSTEMS
def test_known_visual_embeddings_stand_for_pictures(system: str) -> None:
    model, batch = tiny(system), padded(documents(system))
    expected = model(**batch.inputs())
    visual = model.encode(batch.images)
    assert torch.equal(model(**{**batch.inputs(), "images": None, "visual": visual}), expected)


def test_pictures_of_several_counts_come_back_in_their_order() -> None:
    model, pixels = tiny("emu2"), torch.randn(5, 3, SIDE, SIDE)
    counts = (4, 1, 16, 1, 4)
    found = model.encode(CountedImages(pixels, counts)).split(counts)
    for one, count, got in zip(pixels, counts, found, strict=True):
        assert_close(got, model.encode(CountedImages(one[None], (count,))))


@SYSTEMS
def test_gradients_of_a_packed_batch_are_those_of_its_documents(system: str) -> None:
    """Both losses, each divided by what counts in all documents."""
    model, rows = tiny(system).double(), documents(system)
    plain, whole = NextElement(NextToken(), 0.0), padded(rows)

    def gradients(batches: list[list[Any]]) -> dict[str, Tensor]:
        model.zero_grad()
        for arrangement in batches:
            batch = as_type(packed(arrangement), torch.float64)
            both, words = (objective(model, batch)["loss"] for objective in (NextElement(NextToken(), 0.7), plain))
            shares = (batch.weights.sum() / whole.weights.sum(), batch.regression.sum() / whole.regression.sum())
            (words * shares[0] + (both - words) * shares[1]).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected, found = gradients([[[one]] for one in rows]), gradients([[rows]])
    assert found.keys() == expected.keys() == dict(model.named_parameters()).keys()
    for name, gradient in found.items():
        assert_close(gradient, expected[name], atol=1e-7, rtol=1e-5, msg=name)  # token losses are float32


@SYSTEMS
def test_without_pictures_every_weight_has_a_gradient_while_training(system: str) -> None:
    """Processes that train together wait for each other's gradients."""
    model, batch = tiny(system).train(), padded([sample(system, 4), sample(system, 7)])
    NextElement(NextToken())(model, batch)["loss"].backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    unused = {name for name, gradient in gradients.items() if not gradient.any()}
    assert unused == {name for name in gradients if not name.startswith("decoder.")}


@SYSTEMS
def test_without_pictures_a_frozen_image_path_does_not_run(system: str) -> None:
    """A blank picture is read only where it trains something; the projection and the head have gradients anyway."""
    model, batch = tiny(system), padded([sample(system, 4)])
    expected = model(**batch.inputs())
    assert torch.equal(model.train()(**batch.inputs()), expected)
    for part in (model.image_encoder, model.connector):
        part.requires_grad_(False)
    ran: list[str] = []
    model.image_encoder.register_forward_hook(lambda *_: ran.append("tower"))
    model.image_encoder.blocks.register_forward_hook(lambda *_: ran.append("blocks"))
    NextElement(NextToken())(model, batch)["loss"].backward()
    assert not ran
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@SYSTEMS
def test_every_row_learns_from_its_own_pictures_only(system: str) -> None:
    """Images keep their order through rows; the gradient at one row's picture is that of its own loss."""
    model, batch = tiny(system), padded(documents(system))
    assert batch.images is not None
    pixels = batch.images.pixels.requires_grad_()
    hidden = model(**batch.inputs())
    hidden[2, batch.documents[2] >= 0].sum().backward()
    assert [bool(one.any()) for one in pixels.grad] == [False, True, True, True, False, False]


def alone(model: Any, one: Any, steps: int) -> list[int]:
    """The likeliest ids behind a document, the whole sequence read anew for each."""
    ids, vision = one.ids, one.vision
    for _ in range(steps):
        hidden = model(ids[None], vision=vision[None], images=one.images)
        ids = torch.cat((ids, model.decoder.head(hidden[0, -1]).argmax()[None]))
        vision = torch.cat((vision, torch.tensor([False])))
    return ids[len(one.ids) :].tolist()


@SYSTEMS
@torch.no_grad()
def test_writing_together_is_writing_one_by_one(system: str) -> None:
    """Prompts of different lengths with no, one and several pictures; the cache against reading all anew."""
    model, rows, steps = tiny(system), documents(system), 5
    expected = [alone(model, one, steps) for one in rows]
    assert len({tuple(one) for one in expected}) > 2
    policy = FreeText(steps, None, PAD)
    for group in (range(6), range(5, -1, -1), (1, 5), (0,)):
        batch = prompts_of(model, [rows[number] for number in group])
        found = model.generate(batch, policy, sampling=Sampling(greedy=True)).ids
        assert found.tolist() == [expected[number] for number in group]


@SYSTEMS
def test_what_stands_at_padding_and_at_pictures_changes_nothing(system: str) -> None:
    model, batch = tiny(system), padded(documents(system))
    found = model(**batch.inputs())
    real = batch.documents >= 0
    batch.ids[~real] = 7
    batch.ids[batch.vision] = 9
    assert torch.equal(model(**batch.inputs())[real], found[real])


@SYSTEMS
def test_saving_and_loading(system: str, tmp_path: Path) -> None:
    model, batch = tiny(system), padded(documents(system))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = tiny(system, seed=1)
    assert not torch.equal(other(**batch.inputs()), model(**batch.inputs()))
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(**batch.inputs()), model(**batch.inputs()))


@SYSTEMS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.float16, 5e-2)])
def test_other_types(system: str, dtype: torch.dtype, tolerance: float) -> None:
    model, batch = tiny(system), padded(documents(system))
    expected = model(**batch.inputs())
    found = model.to(dtype)(**as_type(batch, dtype).inputs())
    assert found.dtype == dtype
    assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
    text = padded([sample(system, 4)])
    assert model.train()(**text.inputs()).dtype == dtype  # the blank picture has the model's type


@SYSTEMS
def test_on_meta_nothing_is_allocated(system: str) -> None:
    with torch.device("meta"):
        model = build(node(system), path="model")
    assert all(p.is_meta for p in (*model.parameters(), *model.buffers()))
    assert {name: p.shape for name, p in model.named_parameters()} == {
        name: p.shape for name, p in tiny(system).named_parameters()
    }
    batch = padded(documents(system))
    inputs = {key: value for key, value in batch.inputs().items() if isinstance(value, Tensor)}
    found = model(**{key: value.to("meta") for key, value in inputs.items()}, images=batch.images.to("meta"))
    assert found.shape == (*batch.ids.shape, WIDTH)


@SYSTEMS
def test_places_and_pictures_that_do_not_fit(system: str) -> None:
    model, batch = tiny(system), padded(documents(system))
    count = int(batch.vision.sum())
    with pytest.raises(ValueError, match=f"{count} visual embeddings without places"):
        model(batch.ids, images=batch.images)
    fewer = batch.vision.clone()
    fewer[tuple(fewer.nonzero()[0])] = False
    with pytest.raises(ValueError, match=f"places for {count - 1} visual embeddings, the pictures give {count}"):
        model(batch.ids, vision=fewer, images=batch.images)
    for training in (False, True):
        with pytest.raises(ValueError, match=f"places for {count} visual embeddings, the pictures give 0"):
            model.train(training)(batch.ids, vision=batch.vision)
    model.eval()
    with pytest.raises(ValueError, match="pictures or their visual embeddings"):
        model(batch.ids, vision=fewer, images=batch.images, visual=torch.zeros(count, model.visual_width))
    with pytest.raises(ValueError, match=r"ids run from .* decoder\.vocab_size is 40"):
        model(batch.ids + VOCAB, vision=batch.vision, images=batch.images)


def test_counts_that_a_connector_does_not_give() -> None:
    pixels = torch.randn(1, 3, SIDE, SIDE)
    with pytest.raises(ValueError, match=r"2 embeddings asked of a picture; connector\.queries is 3"):
        tiny("emu").encode(CountedImages(pixels, (2,)))
    for count in (2, 3, 9, 64):
        with pytest.raises(ValueError, match=rf"^{count} embeddings asked .* 4x4 patches; it gives 1, 4, 16"):
            tiny("emu2").encode(CountedImages(pixels, (count,)))


@pytest.mark.parametrize(
    ("system", "part", "changes", "message"),
    [
        ("emu", "connector", {"width": 17}, r"model\.connector\.width is 17, model\.decoder\.width is 16"),
        ("emu2", "input_projection", {"out_features": 9}, r"input_projection\.out_features is 9, model\.decoder\.wid"),
        ("emu2", "input_projection", {"in_features": 9}, r"input_projection\.in_features is 9, model\.connector\.wid"),
        ("emu2", "connector", {"width": 13}, r"connector reads tokens of width 13, model\.image_encoder gives 12"),
        ("emu", "connector", causal_former(13), r"connector reads tokens of width 13, model\.image_encoder gives 12"),
        ("emu", "connector", {"queries": 0}, r"connector\.queries is 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(system: str, part: str, changes: dict[str, Any], message: str) -> None:
    config = node(system)
    config[part] = {**config[part], **changes}
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build(config, path="model")


#: Encoders of every kind, at a size that gives a grid of 2 x 2.
ENCODERS: dict[str, dict[str, Any]] = {
    "residual": {"type": "residual_network", "image_size": 32, "width": 8, "channels": [4, 4, 8], "depths": [1, 1, 1]},
    "resnet": {
        "type": "modified_resnet", "width": 64, "image_size": 64, "stem_width": 2, "depths": [1, 1, 1, 1],
        "pool": {"type": "mean_pool_2d", "width": 64},
    },
    "timm": {"type": "timm_backbone", "name": "resnet10t", "width": 512, "image_size": 64},
    "timm_vit": {"type": "timm_backbone", "name": "vit_tiny_patch16_224", "width": 192, "image_size": 32},
    "open_clip": {"type": "open_clip_tower", "name": "ViT-S-16", "width": 384, "image_size": 32},
    "transformers": {
        "type": "transformers_vision", "family": "dinov2", "width": 12, "image_size": 8,
        "options": {"num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4, "hidden_size": 12},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("connector", ["causal_former", "pooled_tokens"])
def test_any_image_encoder_with_either_connector(kind: str, connector: str) -> None:
    """One step of learning: the encoder, the decoder and the regression head get gradients."""
    encoder = build(ENCODERS[kind], path="encoder")
    width, system = int(getattr(encoder, "token_width", encoder.width)), "emu"
    config = {**node(system), "connector": causal_former(width)}
    if connector == "pooled_tokens":
        system = "emu2"
        up = {"type": "linear_layer", "in_features": width, "out_features": WIDTH, "bias": False}
        config |= {"connector": {"type": "pooled_tokens", "width": width}, "input_projection": up}
    model = build({**config, "image_encoder": ENCODERS[kind]}, path="model")
    pixels = torch.randn(2, 3, model.image_size, model.image_size)
    assert image_tokens(encoder, pixels).grid == (2, 2)
    counts = (COUNTS[system][0],) * 2
    batch = padded([sample(system, 2, PICTURE, 1, PICTURE)._replace(images=CountedImages(pixels, counts))])
    NextElement(NextToken())(model.train(), batch)["loss"].backward()
    for part in (model.image_encoder, model.decoder, model.regression_head):
        assert any(bool(p.grad.any()) for p in part.parameters() if p.grad is not None)


@SYSTEMS
def test_compiled_it_is_one_graph(system: str) -> None:
    """Forward and backward, with pictures among the words; a graph break is an error."""
    model = tiny(system)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    batch = padded([sample(system, 3, PICTURE, 2), sample(system, 3, PICTURE, 2)])
    inputs = {"ids": batch.ids, "positions": batch.positions, "vision": batch.vision, "images": batch.images}
    weights = [*model.image_encoder.patches.parameters(), *model.decoder.blocks.parameters()]
    expected = torch.autograd.grad(model(**inputs).square().mean(), weights)
    found = torch.autograd.grad(compiled(**inputs).square().mean(), weights)
    assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_norm_of_pooled_vectors_is_gone() -> None:
    """Nothing reads it: its weights would wait for a gradient that never comes."""
    assert not [name for name in tiny("emu").state_dict() if name.startswith("image_encoder.pool")]


@SYSTEMS
def test_a_batch_of_words_alone_reads_no_picture_in_evaluation(system: str) -> None:
    model, one = tiny(system), sample(system, 5)
    assert model.seen(one.ids[None], None) is None
    assert pictures_of([one]) is None
    assert_close(model(one.ids[None]), model.decoder(one.ids[None]))


def test_sizes_of_the_tiny_models_differ() -> None:
    """Otherwise the tests could not tell one width from another."""
    assert len({WIDTH, TOWER, QUERIES, SIDE}) == 4
