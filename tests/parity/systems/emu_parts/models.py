"""Emu's cases of learning: both losses, what they are made of, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from systems.emu_parts.shared import (
    given_of,
    grad_norms,
    images_of,
    in_place,
    model_of,
    queries,
    real_rows,
)
from torch import Tensor

from multimodal_zoo.data.picture_sequences import Row
from multimodal_zoo.data.visual_batches import visual_rows_batch
from multimodal_zoo.data.visual_sequences import VisualSample, tensors_of
from multimodal_zoo.decoders.emu import Emu
from multimodal_zoo.objectives.next_element import NextElement, Regressed, regressed
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.visual_batch import VisualTokenBatch

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"texts": None, "texts_note": None, "files": None}
CALL_FIELDS = {"grad_names"}


def _sample(case: Case, ids: Tensor, pictures: Iterator[Tensor]) -> VisualSample:
    """Ids of one row as the library makes samples of them: Emu learns all words, and all pictures with their ends."""
    special, count = case.config["special_ids"], queries(case.config)
    places = ids == special["<image>"]
    number = torch.div(places.cumsum(0) - 1, count, rounding_mode="floor")
    unlearnt = {special[word] for word in ("[PAD]", "<image>", "[IMG]", "[/IMG]")}
    row = Row(ids.tolist(), [True] * len(ids), torch.where(places, number, -1).tolist())
    chosen = set(row.picture) - {-1}
    images = images_of(case.config, torch.stack([next(pictures) for _ in chosen])) if chosen else None
    return VisualSample(*tensors_of(row, unlearnt, chosen, True), images, "")


def _samples(case: Case, given: Mapping[str, Tensor]) -> list[VisualSample]:
    pictures = iter(given.get("image", ()))
    rows = real_rows(given["text_input"], given["input_mask"])
    found = [_sample(case, row, pictures) for row in rows]
    assert next(pictures, None) is None
    return found


def _batch(case: Case, given: Mapping[str, Tensor]) -> VisualTokenBatch:
    samples, tokens = _samples(case, given), given["text_input"].shape[1]
    return visual_rows_batch([[one] for one in samples], case.config["special_ids"]["[PAD]"], tokens)


def _passed(case: Case, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Regressed, VisualTokenBatch]:
    model, batch = model_of(case), _batch(case, given)
    visual = model.seen(batch.ids, batch.images)
    states = model.embed(batch.ids, batch.vision, visual)
    hidden = model.decoded(states, batch.positions, batch.documents)
    return states, hidden, regressed(model, batch, states, visual, hidden), batch


@torch.no_grad()
def forward(request: Request) -> Outcome:
    """The loss of words, logits, and what stands before and behind the language model."""
    model, given = model_of(request.case), given_of(request)
    states, hidden, _, batch = _passed(request.case, given)
    whole = model(**batch.inputs())
    alone = torch.zeros_like(hidden)
    for number, row in enumerate(_rows_alone(request.case, given)):
        alone[number, : row.shape[1]] = row[0]
    real = given["input_mask"].bool()
    ways = {
        "logits": tuple(model.decoder.head(one) for one in (hidden, whole, alone)),
        "inputs_embeds": (states,),
        "hidden": (hidden, whole, alone),
    }
    found: dict[str, Any] = {
        name: tuple(in_place(request, name, one, real) for one in way)
        for name, way in ways.items()
        if name in request.call.outputs
    }
    found["llm_loss"] = _losses(model, batch)["language_loss"]
    return {name: found[name] for name in request.call.outputs}


def _rows_alone(case: Case, given: Mapping[str, Tensor]) -> list[Tensor]:
    """Hidden states of each row without padding, in a batch of its own."""
    model = model_of(case)
    return [model(one.ids[None], vision=one.vision[None], images=one.images) for one in _samples(case, given)]


def _losses(model: Emu, batch: VisualTokenBatch, weight: float = 1.0) -> dict[str, Tensor]:
    return NextElement(NextToken(), weight)(model, batch)


@torch.no_grad()
def pairs(request: Request) -> Outcome:
    """Where the regression head is read, what it says there and what it should."""
    _, _, found, batch = _passed(request.case, given_of(request))
    places = batch.regression[:, 1:].nonzero()
    return {"regress_positions": places, "regress_labels": found.targets, "regress_pred": found.predictions}


def backward(request: Request) -> Outcome:
    """Norms of gradients: of the loss of words, or of both losses together."""
    model, batch = model_of(request.case), _batch(request.case, given_of(request))
    return _backward(request, model, _losses(model, batch, float(request.match["weight"] or 0)))


def backward_of_regression(request: Request) -> Outcome:
    """The regression and norms of its gradients: words are there and none of them counts."""
    model, batch = model_of(request.case), _batch(request.case, given_of(request))
    batch.weights = torch.zeros_like(batch.weights)
    return _backward(request, model, _losses(model, batch))


def _backward(request: Request, model: Emu, losses: Mapping[str, Tensor]) -> Outcome:
    model.zero_grad()
    losses["loss"].backward()
    (name,) = (one for one in request.call.outputs if one.startswith("grad_norms"))
    norms = grad_norms(request.case, model, request.call.extra["grad_names"])
    found = {name: norms, "regression_loss": losses["regression_loss"]}
    return {output: found[output] for output in request.call.outputs}


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"Emu\.forward")(forward)
    system.call(r"intermediate: inputs_embeds after the images are in place; last hidden state \(.*\)")(forward)
    system.call(r"regress masks, labels and stu_regress_head outputs")(pairs)
    system.call(r"backward of llm_loss(?: \+ (?P<weight>[\d.]+) \* regression loss)?")(backward)
    system.call(r"regression loss: mean squared error between regress_pred and the detached regress_labels, .*")(
        backward_of_regression
    )
