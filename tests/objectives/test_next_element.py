"""Emu's unified objective by hand: which states predict what, weights, detached targets, known embeddings, widths."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from emu_documents import COUNTS, FRAME, PICTURE, VOCAB, documents, packed, padded, sample, tiny
from torch import Tensor, nn
from torch.testing import assert_close

from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.objectives.next_element import NextElement, regressed
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch

SYSTEMS = pytest.mark.parametrize("system", ["emu", "emu2"])


def directly(model: Emu, batch: VisualTokenBatch) -> dict[str, Tensor]:
    """The same numbers place by place, from whole logits."""
    visual = None if batch.images is None else model.encode(batch.images)
    states = model.embed(batch.ids, batch.vision, visual)
    hidden = model.decoded(states, batch.positions, batch.documents)
    logits, predictions = model.decoder.head(hidden), model.regression_head(hidden)
    words, errors, targets, number = [], [], [], 0
    for row in range(len(batch.ids)):
        for place in range(batch.ids.shape[1]):
            own = batch.vision[row, place]
            target = visual[number] if own and visual is not None else states[row, place]
            number += int(own)
            if not place:
                continue
            if (weight := batch.weights[row, place]) > 0:
                words.append(weight * F.cross_entropy(logits[row, place - 1], batch.ids[row, place]))
            if (weight := batch.regression[row, place]) > 0:
                errors.append(weight * (predictions[row, place - 1] - target.detach()).square().mean())
                targets.append(target.detach())
    zero = hidden.sum() * 0
    language = sum(words, zero) / batch.weights[:, 1:].sum().clamp(min=1e-8)
    regression = sum(errors, zero) / batch.regression[:, 1:].sum().clamp(min=1e-8)
    spread = torch.stack(targets).std(0, unbiased=False).mean() if targets else torch.zeros(())
    return {"language_loss": language, "regression_loss": regression, "target_deviation": spread}


@SYSTEMS
@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_both_losses_place_by_place(system: str, weight: float) -> None:
    model, rows = tiny(system), documents(system)
    for batch in (padded(rows), packed([rows]), padded(rows[:1])):
        batch.regression = batch.regression * torch.rand_like(batch.regression)
        expected = directly(model, batch)
        found = NextElement(NextToken(), weight)(model, batch)
        for name, value in expected.items():
            assert_close(found[name], value.detach(), atol=1e-5, rtol=1e-4, msg=name)
        total = expected["language_loss"] + weight * expected["regression_loss"]
        assert_close(found["loss"], total, atol=1e-5, rtol=1e-4)
        theirs = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
        model.zero_grad()
        found["loss"].backward()
        for (name, ours), grad in zip(model.named_parameters(), theirs, strict=True):
            known = torch.zeros_like(ours) if ours.grad is None else ours.grad
            assert_close(known, torch.zeros_like(ours) if grad is None else grad, atol=1e-5, rtol=1e-3, msg=name)


def test_the_pairs_of_a_picture() -> None:
    """Emu: what opens it predicts the first embedding, the last predicts the word embedding of what closes it."""
    model, count = tiny("emu"), COUNTS["emu"][0]
    batch = padded([sample("emu", 2, PICTURE, 1)])
    visual = model.encode(batch.images)
    states = model.embed(batch.ids, batch.vision, visual)
    hidden = model.decoded(states)
    found = regressed(model, batch, states, visual, hidden)
    closing = model.decoder.token_embedding.weight[batch.ids[0, 3 + count]]
    assert_close(found.targets, torch.cat([visual, closing[None]]))
    assert_close(found.predictions, model.regression_head(hidden[0, 2 : 3 + count]))
    assert found.weights.tolist() == [1.0] * (count + 1)


def test_targets_take_no_gradient_and_inputs_do() -> None:
    """Of one picture at the end only its first predictions count: its last embedding is a target and no input."""
    model, batch = tiny("emu2"), padded([sample("emu2", 2, PICTURE)])
    visual = model.encode(batch.images).detach().requires_grad_()
    known = replace(batch, images=None, visual=visual, weights=torch.zeros_like(batch.weights))
    NextElement(NextToken())(model, known)["loss"].backward()
    assert visual.grad[:-1].abs().sum(-1).all()
    assert not visual.grad[-1].any()


@SYSTEMS
def test_known_embeddings_give_the_same_losses(system: str) -> None:
    model, batch = tiny(system), padded(documents(system))
    expected = NextElement(NextToken())(model, batch)
    known = replace(batch, images=None, visual=model.encode(batch.images).detach())
    found = NextElement(NextToken())(model, known)
    assert {name: value.item() for name, value in found.items()} == {name: v.item() for name, v in expected.items()}


@SYSTEMS
def test_words_alone_and_embeddings_alone(system: str) -> None:
    model = tiny(system).train()
    words = NextElement(NextToken())(model, padded([sample(system, 5)]))
    assert words["regression_loss"] == 0
    assert words["target_deviation"] == 0
    assert words["loss_weight"] == 4
    batch = padded([sample(system, 1, PICTURE, 2, FRAME)])
    batch.weights = torch.zeros_like(batch.weights)
    seen = NextElement(NextToken())(model, batch)
    assert seen["language_loss"] == 0
    assert_close(seen["loss"], seen["regression_loss"])
    assert seen["loss_weight"] == batch.regression.sum()


def test_a_collapse_shows() -> None:
    """All embeddings alike: the regression could become nothing, and the deviation of its targets says so."""
    model, batch = tiny("emu2"), padded([sample("emu2", 2, PICTURE, 1, PICTURE)])
    places = int(batch.vision.sum())
    alike = replace(batch, images=None, visual=torch.ones(places, model.visual_width))
    assert NextElement(NextToken())(model, alike)["target_deviation"] < 1e-6
    apart = replace(alike, visual=torch.randn(places, model.visual_width))
    assert NextElement(NextToken())(model, apart)["target_deviation"] > 0.5


def test_logits_and_predictions_stay_few() -> None:
    """The vocabulary's logits exist a few at a time, and the regression head reads only the places that count."""
    model, batch = tiny("emu"), padded([sample("emu", 2, PICTURE, 20, PICTURE)])
    shapes: list[tuple[int, ...]] = []
    model.regression_head.register_forward_hook(lambda _, args, out: shapes.append(tuple(out.shape)))
    few, many = (NextElement(NextToken(held_logits=held))(model, batch) for held in (2 * VOCAB, 2**20))
    assert shapes == [(int(batch.regression.sum()), model.visual_width)] * 2
    assert_close(few["loss"], many["loss"])


def test_half_precision_regresses_in_float32() -> None:
    model, batch = tiny("emu2"), padded(documents("emu2"))
    expected = NextElement(NextToken())(model, batch)["regression_loss"]
    batch.images = replace(batch.images, pixels=batch.images.pixels.half())
    found = NextElement(NextToken())(model.half(), batch)["regression_loss"]
    assert found.dtype == torch.float32
    assert_close(found, expected, atol=2e-2, rtol=2e-2)


def test_a_closing_target_needs_equal_widths() -> None:
    model, batch = tiny("emu2"), padded([sample("emu2", 2, PICTURE, 1)])
    batch.regression[0, int(batch.vision[0].nonzero()[-1]) + 1] = 1
    message = r"1 words are targets .* model\.visual_width is 12, not the decoder's 16: set processor\.closing to false"
    with pytest.raises(ValueError, match=message):
        NextElement(NextToken())(model, batch)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"objective\.weight is -1"):
        NextElement(NextToken(), -1)
    other = nn.Module()
    other.decoder = tiny("emu").decoder
    with pytest.raises(ValueError, match="needs a model with a regression_head, not Module: choose model=emu_tiny"):
        NextElement(NextToken()).check(other)
    NextElement(NextToken()).check(tiny("emu"))
