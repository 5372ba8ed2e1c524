"""Emu3's cases: constraint, guidance, drawing and answering."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from harness.cases import Call, Case, seeded
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from systems.emu3_parts.models import decoder
from systems.emu3_parts.processor import processor
from systems.emu3_parts.vision import vision_tokenizer
from torch import Tensor

from multimodal_zoo.data.visual_codes import encode_pictures
from multimodal_zoo.decoders.emu3 import Emu3
from multimodal_zoo.generation.guidance import guide, guide_log_probabilities
from multimodal_zoo.generation.loop import Generated, Scoring
from multimodal_zoo.generation.policies import FREE, allow, picture_layout
from multimodal_zoo.generation.prompts import PromptBatch, left_padded
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.tokenizers.emu3_ids import Emu3Ids

#: Mark of the table of allowed ids: not to be compared (any visual token is `FREE`).
SKIPPED = -2


def allowed(request: Request) -> Outcome:
    """The ids that grids allow, step by step."""
    case, (name,) = request.case, request.call.outputs
    grids, lengths = case.take(request.call)
    config = take_known(case.config, ("ids", "visual_first", "visual_count"), "config")
    roles = ("img_token", "eoi_token", "eos_token", "eol_token", "eof_token", "pad_token")
    known = take_known(config["ids"], roles, "ids")
    ids = Emu3Ids(
        pad=known["pad_token"],
        bos=FREE,
        eos=known["eos_token"],
        end_of_line=known["eol_token"],
        end_of_frame=known["eof_token"],
        image_token=known["img_token"],
        image_start=FREE,
        image_end=known["eoi_token"],
        visual_first=config["visual_first"],
        codebook_size=config["visual_count"],
    )
    expected = case.tensors[name]
    grids = grids.expand(len(lengths), -1)  # one grid may serve all rows
    whole = picture_layout(ids, grids.tolist())
    found = torch.stack([whole.at(step).forced for step in range(expected.shape[1])], dim=1)
    assert whole.rows == ids.visual
    # the same from within: every step again behind what stood before it
    inner = torch.stack([_behind(ids, found, grids, step) for step in range(expected.shape[1])], dim=1)
    return {name: tuple(torch.where(expected == SKIPPED, SKIPPED, way) for way in (found, inner))}


def _behind(ids: Emu3Ids, found: Tensor, grids: Tensor, step: int) -> Tensor:
    begun = torch.where(found[:, :step] == FREE, ids.visual_first, found[:, :step])
    steps = []
    for row, size in zip(begun, grids.tolist(), strict=True):
        over = bool((row == ids.eos).any())
        steps.append(ids.pad if over else int(picture_layout(ids, [size], begun=[row]).at(0).forced))
    return torch.tensor(steps)


def guided(request: Request) -> Outcome:
    """Guidance over the whole vocabulary, and the prompt alone."""
    config = _logits_config(request.case)
    conditional, unconditional = request.case.take(request.call)
    both, alone = request.call.outputs
    return {
        both: guide_log_probabilities(conditional, unconditional, config["guidance_scale"]),
        alone: guide_log_probabilities(conditional, None, 1),
    }


def constrained(request: Request) -> Outcome:
    """A range of ids in one row, one id in the other."""
    (scores,) = request.case.take(request.call)
    rows, forced = _constraint(request.case)
    return {request.call.outputs[0]: allow(scores, rows, forced)}


def _logits_config(case: Case) -> dict[str, Any]:
    return take_known(case.config, ("guidance_scale", "top_k", "allowed_row0", "allowed_row1"), "config")


def _constraint(case: Case) -> tuple[slice, Tensor]:
    config = _logits_config(case)
    (first, last), (one, same) = config["allowed_row0"], config["allowed_row1"]
    assert one == same
    return slice(first, last + 1), torch.tensor([FREE, one])


def top_k(request: Request) -> Outcome:
    """Scores and probabilities; the latter of the whole vocabulary and of the slice that can be drawn."""
    case = request.case
    (scores,) = case.take(request.call)
    config, (rows, forced) = _logits_config(case), _constraint(case)
    sampling, (kept, shares) = Sampling(top_k=config["top_k"]), request.call.outputs
    sliced = torch.zeros_like(scores)
    sliced[1, forced[1]] = 1
    both = (case.tensors[name][:1, rows] for name in ("cond", "uncond"))
    sliced[:1, rows] = sampling.probabilities(guide(*both, config["guidance_scale"]))
    return {kept: sampling.filtered(scores), shares: (sampling.probabilities(scores), sliced)}


@dataclass(frozen=True)
class PublishedDice(Sampling):
    """Draws as the published script does: torch's global generator, one call a step over the whole vocabulary."""

    def choose(self, scores: Tensor, numbers: Tensor | None, step: int = 0) -> Tensor:
        """The place of one score in each row."""
        del numbers
        return torch.multinomial(self.probabilities(scores, step), 1)[:, 0]


def model(case: Case) -> Emu3:
    """Decoder and visual tokenizer of a case, whose weights lie in two files."""

    def make() -> Emu3:
        state = {key: seeded(key, shape) for key, shape in case.fields["vision_manifest"].items()}
        for key, value in case.fields["vision_fixed"].items():
            state[key] = torch.as_tensor(value).to(state[key].dtype).view_as(state[key])
        vision = vision_tokenizer(case.config["vision_tokenizer"], state)
        return Emu3(decoder(case.config["language_model"], case.state), processor(case).ids, vision).eval()

    ours = case.once("model", make)
    language, ids = case.config["language_model"], ours.ids
    named = {"img": ids.image_token, "boi": ids.image_start, "eoi": ids.image_end, "eol": ids.end_of_line}
    named |= {"eof": ids.end_of_frame, "pad": ids.pad, "bos": ids.bos, "eos": ids.eos}
    assert all(language.get(f"{name}_token_id", number) == number for name, number in named.items())
    return ours


def draw(request: Request) -> Outcome:
    """Pictures behind prompts, in the published way and in the fast one; the prompts are made anew as well."""
    case, call = request.case, request.call
    known = ("text", "negative", "ratio", "image_area", "guidance_scale", "do_sample", "top_k", "torch_seed")
    asked = take_known(call.extra["arguments"], known, "arguments")
    ids, mask, negative_ids = case.take(call)
    size, out, kept = call.outputs
    ours, made = model(case), processor(case)
    ratios = asked["ratio"] if isinstance(asked["ratio"], list) else [asked["ratio"]] * len(asked["text"])
    grids = [made.grid(ratio, asked["image_area"]) for ratio in ratios]
    prompts, negative = (
        left_padded([made.generation_prompt(text, grid) for text, grid in zip(texts, grids, strict=True)], made.ids.pad)
        for texts in (asked["text"], asked["negative"])
    )
    assert torch.equal(prompts.inputs, ids)
    assert torch.equal(prompts.real, mask.bool())
    assert torch.equal(negative.inputs, negative_ids)
    policy = ours.picture_steps(prompts, grids)
    steps = [int(step) for step in re.search(r"steps \[([\d, ]+)\]", call.note)[1].split(",")]
    sampling = PublishedDice(top_k=asked["top_k"]) if asked["do_sample"] else Sampling(greedy=True)
    scale = asked["guidance_scale"]
    if asked["do_sample"]:
        torch.manual_seed(asked["torch_seed"])
    scoring = Scoring(scale, exact=True, keep=steps)
    exact = ours.generate(prompts, policy, negative=negative, sampling=sampling, scoring=scoring)
    ways = [exact]
    if not asked["do_sample"]:
        ways.append(ours.generate(prompts, policy, negative=negative, sampling=sampling, scoring=Scoring(scale)))
    return {
        size: torch.tensor(grids),
        out: tuple(torch.cat([ids, way.ids], dim=1) for way in ways),
        kept: torch.stack([exact.scores[step][:, made.ids.visual] for step in steps], dim=1),
    }


def decode(request: Request) -> Outcome:
    """The picture of a drawn sequence."""
    (rows,), (codes, pixels, picture) = request.case.take(request.call), request.call.outputs
    number, made, ours = int(request.match[1]), processor(request.case), model(request.case)
    (found,) = (piece for piece in made.pieces(rows[number].tolist()) if isinstance(piece, Tensor))
    decoded = ours.decode(found[None])
    (shown,) = made.pictures(decoded)
    levels = torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8).view(shown.height, shown.width, 3)
    expected = request.case.tensors[picture]
    near = (levels.int() - expected.int()).abs() <= 1  # one grey level, the note says
    return {codes: found, pixels: decoded, picture: torch.where(near, expected, levels)}


def answer(request: Request) -> Outcome:
    """Answers to questions about pictures."""
    ids, mask, new_ids, scores = request.call.outputs
    prompts, found = _answered(request.case)
    exact = found["exact"].scores[0]
    return {
        ids: prompts.inputs,
        mask: prompts.real.long(),
        new_ids: tuple(_padded(way.ids, request.case.tensors[new_ids].shape[1]) for way in found.values()),
        scores: exact,
    }


def _padded(ids: Tensor, steps: int) -> Tensor:
    return torch.nn.functional.pad(ids, (0, steps - ids.shape[1]))


def _answered(case: Case) -> tuple[PromptBatch, dict[str, Generated]]:
    """Prompts and what came, in both ways and one row at a time."""

    def make() -> tuple[PromptBatch, dict[str, Generated]]:
        call: Call = next(one for one in case.calls if re.fullmatch(ANSWER, one.method))
        steps, ours, made = int(re.fullmatch(ANSWER, call.method)[1]), model(case), processor(case)
        pixels = made.images([picture.numpy() for picture in case.take(call)])
        codes = encode_pictures(ours, pixels)
        rows = [made.understanding_prompt(text, [c]) for text, c in zip(case.fields["texts"], codes, strict=True)]
        prompts, policy, greedy = left_padded(rows, made.ids.pad), ours.text_steps(steps), Sampling(greedy=True)
        scoring = Scoring(exact=True, keep=[0])
        found = {
            "exact": ours.generate(prompts, policy, sampling=greedy, scoring=scoring),
            "fast": ours.generate(prompts, policy, sampling=greedy),
        }
        return prompts, found

    return case.once("answered", make)


def answers(case: Case) -> Outcome:
    """The texts of what came."""
    _, found = _answered(case)
    rows = found["fast"].ids.tolist()
    return {"answers": Pair([processor(case).decode(row) for row in rows], case.fields["answers"])}


ANSWER = r"processor then generate \(greedy, (\d+) new tokens\)"
#: Further fields of these cases, with a check of what they say, or None for mere inputs.
FIELDS: dict[str, Callable[[Case], Outcome] | None] = {
    "vision_manifest": None,
    "vision_fixed": None,
    "answers": answers,
}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"allowed\(batch_id, ids\) step by step")(allowed)
    system.call(r"guide")(guided)
    system.call(r"constrain")(constrained)
    system.call(r"top-k then softmax")(top_k)
    system.call(r"generate", lambda case, call: "arguments" in call.extra)(draw)
    system.call(r"decode\(\w+\[(\d+)\]\)")(decode)
    system.call(ANSWER)(answer)
