"""Emu's and Emu2's cases of generated embeddings of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from harness.cases import Case
from harness.run import Outcome, Request, System
from systems.emu_parts.shared import (
    given_of,
    images_of,
    in_place,
    is_first,
    model_of,
    queries,
    real_rows,
    samples_of,
)
from torch import Tensor, nn

from multimodal_zoo.decoders.emu import Emu

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS: set[str] = set()


def prompt_ids(request: Request) -> Outcome:
    """Texts up to the token that opens a picture; Emu pads on the right, Emu2 on the left."""
    rows = [sample.ids for sample in samples_of(request.case, drawing=True)]
    pad, side = request.case.config["special_ids"]["[PAD]"], "right" if is_first(request.case.config) else "left"
    padded = nn.utils.rnn.pad_sequence(rows, True, pad, side)
    real = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], True, 0, side)
    return dict(zip(request.call.outputs, (padded, real), strict=True))


def _imagined(case: Case, ids: Tensor, mask: Tensor, image: Tensor | None) -> tuple[Tensor, ...]:
    """Visual embeddings behind prompts: all in one batch, each alone, and by whole passes without a cache."""
    model, count = model_of(case), queries(case.config)
    special, rows = case.config["special_ids"], real_rows(ids, mask)
    places = [row == special["<image>"] for row in rows]
    visual = None if image is None else model.encode(images_of(case.config, image))
    batch = model.imagine(model.prompts(rows, places, visual, special["[PAD]"]), count)
    found, start = [], 0
    for row, shown in zip(rows, places, strict=True):
        own = None if visual is None else visual[start : start + int(shown.sum())]
        start += int(shown.sum())
        found.append(model.imagine(model.prompts([row], [shown], own, special["[PAD]"]), count))
    return batch, torch.cat(found), _uncached(model, ids, mask, visual, special, count)[0]


def _uncached(
    model: Emu, ids: Tensor, mask: Tensor, visual: Tensor | None, special: Mapping[str, int], count: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same by whole passes, and the last one's states and mask, with the first one's embeddings and states."""
    real = mask.bool()
    states = model.embed(ids, ids == special["<image>"], visual)
    rows = [one[kept] for one, kept in zip(states, real, strict=True)]
    left = bool(real[:, -1].all())
    found: list[Tensor] = []
    for step in range(count):
        hidden, seen = _passes(model, rows, left)
        if not step:
            first = hidden
        ends = torch.stack([one[kept][-1] for one, kept in zip(hidden, seen, strict=True)])
        found.append(model.regression_head(ends))
        if step < count - 1:
            rows = [torch.cat([row, new[None]]) for row, new in zip(rows, model.project(found[-1]), strict=True)]
    return torch.stack(found, 1), hidden, seen, states, first


def _passes(model: Emu, rows: list[Tensor], left: bool) -> tuple[Tensor, Tensor]:
    """One pass over rows of embeddings, padded on one side, and which of its places are real."""
    tokens = max(len(row) for row in rows)
    sides = [(tokens - len(row), 0) if left else (0, tokens - len(row)) for row in rows]
    states = torch.stack([F.pad(row, (0, 0, *side)) for row, side in zip(rows, sides, strict=True)])
    real = torch.stack([F.pad(torch.ones(len(row)), side) for row, side in zip(rows, sides, strict=True)]).bool()
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    return model.decoded(states, positions, torch.where(real, 0, -1)), real


@torch.no_grad()
def imagined(request: Request) -> Outcome:
    """Generated embeddings of pictures."""
    given = given_of(request)
    case = request.case
    ways = _imagined(case, given["input_ids_step_0"], given["attention_mask_step_0"], given.get("image"))
    return {request.call.outputs[0]: ways}


@torch.no_grad()
def imagined_of_nothing(request: Request) -> Outcome:
    """Generated embeddings of the empty prompt."""
    special = request.case.config["special_ids"]
    ids = torch.tensor([[special["<s>"], special["[IMG]"]]])
    return {request.call.outputs[0]: _imagined(request.case, ids, torch.ones_like(ids), None)}


@torch.no_grad()
def steps(request: Request) -> Outcome:
    """What the first and the last step of generation see."""
    case, model = request.case, model_of(request.case)
    ids, mask = case.tensors["input_ids_step_0"], case.tensors["attention_mask_step_0"]
    image = case.tensors.get("image")
    visual = None if image is None else model.encode(images_of(case.config, image))
    found = _uncached(model, ids, mask, visual, case.config["special_ids"], queries(case.config))
    _, last, seen, states, first = found
    outcome: dict[str, Any] = {"attention_mask_last": seen.long()}
    for name, value, real in (
        ("inputs_embeds_step_0", states, mask.bool()),
        ("hidden_step_0", first, mask.bool()),
        ("hidden_last", last, seen),
    ):
        if name in request.call.outputs:
            outcome[name] = in_place(request, name, value, real)
    return {name: outcome[name] for name in request.call.outputs}


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"tokenizer\(text with placeholders expanded, plus \[IMG\]\)")(prompt_ids)
    system.call(r"Emu\.generate_image|EmuModel\.generate_image")(imagined)
    system.call(
        r"Emu\.generate_image, empty prompt alone, no image|EmuModel\.generate_image of the empty prompt \(.*\)"
    )(imagined_of_nothing)
    system.call(r"intermediate: inputs_embeds(?:, mask)? and last hidden state of step 0.*")(steps)
