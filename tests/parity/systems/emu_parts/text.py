"""Emu's and Emu2's cases of texts: prompts, states, greedy and beam search, answers ranked by their losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from systems.emu_parts.shared import in_place, is_first, model_of, processor_of, queries, samples_of
from torch import Tensor, nn

from multimodal_zoo.evaluation.likelihood import likelihoods
from multimodal_zoo.generation.beams import Beams, beam_search
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.prompts import PromptBatch
from multimodal_zoo.nn.counted_images import CountedImages

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"candidates": None}
CALL_FIELDS = {"settings", "decoded", "n_segments"}
SETTINGS = ("num_beams", "max_new_tokens", "length_penalty", "min_length", "min_len", "repetition_penalty")


def tokens(request: Request) -> Outcome:
    """Prompts as ids, padded on the left."""
    rows = [sample.ids for sample in samples_of(request.case)]
    pad = request.case.config["special_ids"]["[PAD]"]
    ids = nn.utils.rnn.pad_sequence(rows, True, pad, "left")
    real = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], True, 0, "left")
    return dict(zip(request.call.outputs, (ids, real), strict=True))


def _visual(case: Case, given: Mapping[str, Tensor], ids: Tensor) -> tuple[Tensor, Tensor | None]:
    """Where visual embeddings stand, and these, pictures and frames in the order of their places."""
    special, model = case.config["special_ids"], model_of(case)
    frame = special.get("[gIMG]", -1)
    places = (ids == special["<image>"]) | (ids == frame)
    kinds = [(given.get("image"), queries(case.config), special["<image>"])]
    if not is_first(case.config):
        kinds.append((given.get("video"), case.config["vision_cfg"]["v_query"], frame))
    parts: dict[int, Any] = {}
    for pixels, count, mark in kinds:
        if pixels is not None and len(pixels):
            parts[mark] = iter(model.encode(CountedImages(pixels, (count,) * len(pixels))))
    marks = ids[places].tolist()
    found = [next(parts[mark]) for mark in marks]
    assert all(next(rest, None) is None for rest in parts.values())
    return places, torch.stack(found) if found else None


def _given(request: Request) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    given = dict(zip(request.call.inputs, request.case.take(request.call), strict=True))
    ids = given["input_ids"]
    return given, ids, given.get("attention_mask", torch.ones_like(ids)).bool()


def _prompts(request: Request) -> PromptBatch:
    given, ids, real = _given(request)
    places, visual = _visual(request.case, given, ids)
    model, pad = model_of(request.case), request.case.config["special_ids"]["[PAD]"]
    rows = [row[kept] for row, kept in zip(ids, real, strict=True)]
    return model.prompts(rows, [row[kept] for row, kept in zip(places, real, strict=True)], visual, pad)


@torch.no_grad()
def states(request: Request) -> Outcome:
    """Embeddings, states and logits of the prompts; what stands at padding means nothing."""
    case, model = request.case, model_of(request.case)
    given, ids, real = _given(request)
    places, visual = _visual(case, given, ids)
    embedded, layers = model.embed(ids, places, visual), []
    positions = (real.long().cumsum(1) - 1).clamp(min=0)
    hidden = model.decoded(embedded, positions, torch.where(real, 0, -1), observe=lambda _, state: layers.append(state))
    special, logits = case.config["special_ids"], model.decoder.head(hidden)
    shown = (ids == special["[IMG]"]) | (ids == special["<image>"])
    found: dict[str, Callable[[], Tensor]] = {
        "inputs_embeds": lambda: in_place(request, "inputs_embeds", embedded, real),
        "hidden_1": lambda: in_place(request, "hidden_1", layers[1], real),
        "hidden_last": lambda: in_place(request, "hidden_last", hidden, real),
        "logits": lambda: logits[:, -case.tensors["logits"].shape[1] :],
        "visual_predictions": lambda: model.regression_head(hidden[shown]),
    }
    return {name: found[name]() for name in request.call.outputs}


def generated(request: Request) -> Outcome:
    """Texts, of all prompts at once and of each alone."""
    settings = take_known(request.call.extra["settings"], SETTINGS, "settings")
    special, processor = request.case.config["special_ids"], processor_of(request.case)
    least = settings.get("min_length", settings.get("min_len", 1))
    beams = Beams(settings["num_beams"], settings["length_penalty"], least, settings.get("repetition_penalty", 1.0))
    policy = FreeText(settings["max_new_tokens"], special["</s>"], special["[PAD]"])
    prompts, decoder = _prompts(request), model_of(request.case).decoder
    whole = beam_search(decoder, prompts, policy, beams, start=special["<s>"])
    alone = [
        PromptBatch(one[kept][None], kept[kept][None]) for one, kept in zip(prompts.inputs, prompts.real, strict=True)
    ]
    parts = [beam_search(decoder, one, policy, beams, start=special["<s>"]) for one in alone]
    rows = [one.ids[0, : int(one.lengths[0])] for one in parts]
    ways = [whole.ids, nn.utils.rnn.pad_sequence(rows, True, special["[PAD]"])]
    started = tuple(nn.functional.pad(ids, (1, 0), value=special["<s>"]) for ids in ways)
    found: dict[str, Any] = {request.call.outputs[0]: started}
    if "decoded" in request.call.extra:
        texts = [processor.decode(row.tolist()) for row in rows]
        found["decoded"] = Pair(texts, request.call.extra["decoded"])
    return found


def _segments(count: int, segments: int) -> list[slice]:
    """Which candidates are computed together: the last segment has what is over."""
    size = count // segments
    ends = [size * number for number in range(segments)] + [count]
    return [slice(*pair) for pair in pairwise(ends)]


@torch.no_grad()
def ranked(request: Request) -> Outcome:
    """Losses of candidates behind a prompt, and their order."""
    case, (losses, order) = request.case, request.call.outputs
    processor = processor_of(case)
    rows = [processor.text_ids(text) for text in case.fields["candidates"]]
    found = -likelihoods(model_of(case).decoder, prompt := _prompts(request), rows).scores
    for part in _segments(len(rows), request.call.extra["n_segments"]):  # padding of a segment counts (published)
        found[part] /= int(prompt.lengths[0]) + max(len(row) for row in rows[part]) - 1
    return {losses: found, order: found.argsort()[None]}


def register(system: System) -> None:
    """Add the handlers."""
    system.call(r"tokenizer\((?:prompts|texts) with placeholders expanded\)(?:, padding side left)?")(tokens)
    system.call(
        r"intermediate: inputs_embeds; logits of the prompt"
        r"|intermediate: inputs_embeds; hidden state after layer 0; last hidden state \(after the final norm\)"
        r"|logits of the last two positions"
        r"|project_down\(last hidden state\) at the \[IMG\] and <image> positions, row-major"
    )(states)
    system.call(r"Emu\.generate|EmuModel\.generate")(generated)
    system.call(r"Emu\.predict")(ranked)
