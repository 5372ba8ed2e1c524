"""EVE's cases of whole models: logits, losses, gradients and generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from harness.cases import Call, Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.eve_parts.shared import (
    DECODER_KEYS,
    batch_of,
    eve,
    gradients,
    kept_tokens,
    norms,
    preprocessor,
    row_of_ids,
    shown_pictures,
    v2_naming,
)
from torch import Tensor

from multimodal_zoo.checkpoints.naming import Naming
from multimodal_zoo.checkpoints.tables.clip import HF
from multimodal_zoo.checkpoints.tables.clip_config import sizes_from_hf
from multimodal_zoo.checkpoints.tables.eve import EVE_TRAINING
from multimodal_zoo.data.picture_sequences import Row
from multimodal_zoo.decoders.eve import Eve
from multimodal_zoo.encoders.patch_teacher import PatchTeacher
from multimodal_zoo.generation.policies import FreeText
from multimodal_zoo.generation.sampling import Sampling
from multimodal_zoo.nn.masked_canvas import cells_of_canvas, valid_box
from multimodal_zoo.nn.patch_cells import PatchCells, cut, joined
from multimodal_zoo.objectives.batch import PictureTokenBatch
from multimodal_zoo.objectives.next_token import NextToken
from multimodal_zoo.objectives.patch_alignment import AlignedNextToken
from multimodal_zoo.registry import build

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"grad_norms"}
COMMON_KEYS = DECODER_KEYS | {"mm_hidden_size", "image_token_index", "ignore_index"}
V1_KEYS = COMMON_KEYS | {
    "mm_projector_type", "preprocessor", "mm_vision_select_layer", "mm_vision_select_feature", "requires_cliploss",
    "teacher",
}  # fmt: skip
V2_KEYS = COMMON_KEYS | {"add_moe", "moe_part", "patch_stride", "dense_stride"}
TEACHER_KEYS = {
    "type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size",
    "hidden_act", "layer_norm_eps",
}  # fmt: skip
TEACHER = "model.vision_clip.backbone."


class Assembled(NamedTuple):
    """The inputs of a call.

    Attributes:
        batch: what the model takes.
        rows: its rows without padding.
        labels: of each row.
        taken: which of the published list of pictures are shown.
    """

    batch: PictureTokenBatch
    rows: list[Row]
    labels: list[Tensor]
    taken: list[int]


def _is_v1(case: Case) -> bool:
    return "preprocessor" in case.config


def _naming(case: Case) -> Naming:
    return EVE_TRAINING if _is_v1(case) else v2_naming(case.config)


def _model(case: Case) -> Eve:
    def make() -> Any:
        config = take_known(case.config, V1_KEYS if _is_v1(case) else V2_KEYS, "config")
        node = eve(config)
        if config.get("requires_cliploss"):
            node["aligner"] = {
                "type": "patch_aligning", "width": config["hidden_size"], "depth": config["num_hidden_layers"],
                "teacher_width": config["teacher"]["hidden_size"],
            }  # fmt: skip
        model = build(node, path="model")
        model.load_state_dict(_naming(case).load(case.state))
        return model.eval()

    return case.once("model", make)


def _teacher(case: Case) -> PatchTeacher:
    def make() -> Any:
        sizes = take_known(case.config["teacher"], TEACHER_KEYS, "config.teacher")
        assert sizes.pop("type") == "CLIPVisionModel"
        assert case.config["mm_vision_select_feature"] == "patch"
        encoder = build(sizes_from_hf({"vision_config": sizes}).node()["image"], path="teacher")
        own = {name.removeprefix(TEACHER): value for name, value in case.state.items() if name.startswith(TEACHER)}
        encoder.load_state_dict({name.removeprefix("image."): value for name, value in HF.load(own).items()})
        return PatchTeacher(encoder, layer=case.config["mm_vision_select_layer"])

    return case.once("teacher", make)


def _cells(case: Case, given: dict[str, Tensor]) -> list[PatchCells]:
    if _is_v1(case):
        known = preprocessor(case.config)
        return [cells_of_canvas(one, known["patch_stride"], known["conv_stride"]) for one in given["images"]]
    pictures = [value for name, value in given.items() if name.startswith("image_")]
    return [cut(one, case.config["patch_stride"], case.config["dense_stride"]) for one in pictures]


def _assembled(case: Case, given: dict[str, Tensor]) -> Assembled:
    """Rows without their padding; a row of text passes its blank picture over."""
    cells, placeholder = _cells(case, given), case.config["image_token_index"]
    real = given["attention_mask"].bool()
    short = [row[kept] for row, kept in zip(given["input_ids"], real, strict=True)]
    pictures = shown_pictures(short, len(cells), placeholder)
    ignored, rows = case.config["ignore_index"], []
    for row, own, given_labels, kept in zip(short, pictures, given["labels"], real, strict=True):
        told = given_labels[kept] != ignored
        assert torch.equal(given_labels[kept][told], row[told])
        rows.append(row_of_ids(row, [cells[number].tokens[0] for number in own], placeholder, told))
    labels = [torch.tensor(row.ids).masked_fill(~torch.tensor(row.learnt), ignored) for row in rows]
    taken = [number for own in pictures for number in own]
    return Assembled(batch_of(rows, [cells[number] for number in taken]), rows, labels, taken)


def _taken(request: Request) -> dict[str, Tensor]:
    return dict(zip(request.call.inputs, request.case.take(request.call), strict=True))


def _in_place(request: Request, name: str, found: Tensor, real: Tensor) -> Tensor:
    """Our values at real tokens, put where the reference has them; what it has at padding means nothing."""
    theirs = request.case.tensors[name].clone()
    theirs[request.case.tensors["expanded_attention_mask"].bool()] = found[real]
    return theirs


@torch.no_grad()
def forward(request: Request) -> Outcome:
    """Logits, states at three depths and the loss of language alone: rows at once, and one by one."""
    case, model = request.case, _model(request.case)
    batch, rows, labels, _ = _assembled(case, _taken(request))
    real, seen = batch.documents >= 0, {}
    hidden = model(**batch.inputs(), observe=lambda passed, stream: seen.update({passed: stream}))
    assert hidden.shape == seen[len(model.decoder.blocks.layers)].shape
    single = torch.zeros_like(hidden)
    for number, alone in enumerate(_rows_alone(model, batch, rows)):
        single[number, : len(alone)] = alone
    loss = NextToken()(model, batch)["loss"][None]
    width = request.case.tensors["expanded_attention_mask"].shape[1]
    values = {"logits": model.decoder.head(hidden), "hidden_0": seen[0], "hidden_1": seen[1], "hidden_last": hidden}
    ways = {name: (value,) for name, value in values.items()}
    ways["hidden_last"] += (single,)
    ways["logits"] += (model.decoder.head(single),)
    found = {
        **{name: tuple(_in_place(request, name, one, real) for one in way) for name, way in ways.items()},
        "loss": loss,
        "llm_loss": loss,
        "expanded_attention_mask": _long(request, real.long(), width, 0),
        "expanded_labels": _long(
            request, torch.nn.utils.rnn.pad_sequence(labels, True, case.config["ignore_index"]), width, -100
        ),
        "visual_token_mask": batch.vision[..., None].float(),
    }
    return {name: found[name] for name in request.call.outputs}


def _long(request: Request, values: Tensor, width: int, value: int) -> Tensor:
    """Values (batch, tokens) as wide as the reference's, which keeps the padding of the ids."""
    return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=value)


def _rows_alone(model: Eve, batch: PictureTokenBatch, rows: Sequence[Row]) -> list[Tensor]:
    """Hidden states of each row in a batch of its own."""
    found, start = [], 0
    pictures = [] if batch.pictures is None else batch.pictures.images()
    for row in rows:
        own = pictures[start : start + len(kept_tokens(row))]
        start += len(own)
        cells = [cut(one, batch.pictures.patch, batch.pictures.window) for one in own] if batch.pictures else []
        inputs = batch_of([row], cells).inputs()
        found.append(model(**inputs)[0])
    return found


def backward(request: Request) -> Outcome:
    """Gradients of the loss of language alone."""
    case, model = request.case, _model(request.case)
    batch = _assembled(case, _taken(request)).batch
    model.zero_grad()
    NextToken()(model, batch)["loss"].backward()
    return _gradients(request, model)


def _gradients(request: Request, model: Eve) -> Outcome:
    found = gradients(model, _naming(request.case))
    tokens = {f"grad_{name}_embedding": found[f"model.vision_tower.{name}_embedding"] for name in ("class", "split")}
    return {**{name: tokens[name] for name in tokens if name in request.call.outputs}, **norms(request.call, found)}


def teacher(request: Request) -> Outcome:
    """Features of the teacher, which sees the whole canvas."""
    (canvases,) = request.case.take(request.call)
    return {request.call.outputs[0]: _teacher(request.case)(canvases[:, :3]).tokens}


def training(request: Request) -> Outcome:
    """Both losses and the gradients of their sum."""
    case, model, given = request.case, _model(request.case), _taken(request)
    batch, _, _, taken = _assembled(case, given)
    canvases = given["images_clip"][taken]
    boxes = [valid_box(one[3], preprocessor(case.config)["patch_stride_clip"]) for one in canvases]
    if taken:
        batch.teacher, batch.boxes = canvases[:, :3], [box for box in boxes if box is not None]
    objective = AlignedNextToken(NextToken(), _teacher(case))
    objective.check(model)
    model.train().zero_grad()
    found = objective(model, batch)
    found["loss"].backward()
    model.eval()
    losses = {"total_loss": found["loss"][None], "align_loss": found["alignment_loss"][None]}
    return {**losses, **_gradients(request, model)}


def generated(request: Request) -> Outcome:
    """The most likely ids behind a prompt, alone and beside longer and shorter prompts."""
    case, model = request.case, _model(request.case)
    ids, *images = request.case.take(request.call)
    placeholder = case.config["image_token_index"]
    first = request.match["first"]
    given = {f"image_{number}": one for number, one in enumerate(images)}
    pictures = _cells(case, {"images": images[0][: first and int(first)]} if _is_v1(case) else given)
    (own,) = shown_pictures(list(ids), len(pictures), placeholder)
    cells = joined([pictures[number] for number in own]) if own else None
    row = row_of_ids(ids[0], [] if cells is None else cells.tokens, placeholder)
    asked, seen = torch.tensor(row.ids), torch.tensor(row.picture) >= 0
    text = torch.arange(len(asked) + 3) % model.decoder.vocab_size
    limit = len(case.tensors[request.call.outputs[0]])
    policy = FreeText(limit, None, 0)
    none = torch.zeros(len(text), dtype=torch.bool)
    found = []
    for around in ([], [text], [text[:2]]):
        rows, vision = [*around, asked], [*(none[: len(one)] for one in around), seen]
        prompts = model.prompts(rows, vision, cells, 0)
        found.append(model.generate(prompts, policy, sampling=Sampling(greedy=True)).ids[-1])
    return {request.call.outputs[0]: tuple(found)}


def _has_model(case: Case, call: Call) -> bool:
    return "num_hidden_layers" in case.config and "ignore_index" in case.config


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"forward(, eval mode)?", _has_model)(forward)
    system.call(r"backward of (loss|the language loss alone)", _has_model)(backward)
    system.call(r"teacher")(teacher)
    system.call(r"forward in training mode \+ backward", _has_model)(training)
    pictures = r"(?:images(?:\[:(?P<first>\d+)\])?|\[image_\d+(?:, image_\d+)*\])"
    system.call(rf"generate\(prompt_ids, {pictures}\), greedy, no eos", _has_model)(generated)
