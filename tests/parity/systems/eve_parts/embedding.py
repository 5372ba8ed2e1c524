"""EVE's cases of the layers that turn pixels into tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.eve_parts.shared import gradients, norms, part, v1_embedding, v2_embedding
from torch import Tensor

from multimodal_zoo.checkpoints.tables.eve import EVE, EVE_V2
from multimodal_zoo.encoders.eve_embedding import EveDirectEmbedding, EvePatchEmbedding
from multimodal_zoo.nn.masked_canvas import cells_of_canvas, picture_of
from multimodal_zoo.nn.patch_cells import PatchCells, cut, joined

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"grad_norms"}
PREFIX = "vision_embedding."
V1_KEYS = {"mm_hidden_size", "hidden_size", "mm_projector_type", "preprocessor", "samples"}
V2_KEYS = {"mm_hidden_size", "hidden_size", "patch_stride", "dense_stride", "sizes_hw"}


def _v1(case: Case) -> EvePatchEmbedding:
    config = take_known(case.config, V1_KEYS, "config")
    return case.once("v1", lambda: part(v1_embedding(config), EVE, case.state, PREFIX))


def _v2(case: Case) -> EveDirectEmbedding:
    config = take_known(case.config, V2_KEYS, "config")
    return case.once("v2", lambda: part(v2_embedding(config), EVE_V2, case.state, PREFIX))


def _tokens(model: Any, pictures: list[PatchCells]) -> tuple[list[Tensor], list[Tensor]]:
    """Tokens of each picture: of all at once, and of one picture after the other."""
    together = joined(pictures)
    return list(model(together).split(together.tokens)), [model(one) for one in pictures]


def _ways(model: Any, pictures: list[PatchCells]) -> Outcome:
    pairs = zip(*_tokens(model, pictures), strict=True)
    return {f"tokens_{number}": pair for number, pair in enumerate(pairs)}


def _backward(request: Request, model: Any, pictures: list[PatchCells], naming: Any) -> Outcome:
    """Gradients of the sum over pictures of the mean square of their tokens."""
    model.zero_grad()
    together, alone = (sum(one.square().mean() for one in way) for way in _tokens(model, pictures))
    together.backward()
    found = gradients(model, naming, PREFIX)
    tokens = {f"grad_{name}_embedding": found[f"model.vision_tower.{name}_embedding"] for name in ("class", "split")}
    return {"loss": (together[None], alone[None]), **tokens, **norms(request.call, found)}


def _v1_pictures(request: Request, model: EvePatchEmbedding) -> list[PatchCells]:
    (canvases,) = request.case.take(request.call)
    return [cells_of_canvas(one, model.patch, model.window) for one in canvases]


@torch.no_grad()
def v1_forward(request: Request) -> Outcome:
    """Tokens of canvases with a mask."""
    model = _v1(request.case)
    pictures = _v1_pictures(request, model)
    return {**_ways(model, pictures), "patch_hw": torch.tensor([one.grids[0] for one in pictures])}


@torch.no_grad()
def v1_steps(request: Request) -> Outcome:
    """What comes between on the way of the first picture; its patches are all of the crop, beyond the cells too."""
    model = _v1(request.case)
    picture = picture_of(request.case.take(request.call)[0][0], model.patch)
    patches, grid = model.patches(picture[None])
    cells = cut(picture, model.patch, model.window)
    pooled = model.pooled(cells)
    return {
        "conv_cropped_0": patches[0].T.unflatten(1, grid),
        "local_attention_0": pooled,
        "class_token_0": model.class_tokens(pooled, cells.grids),
        "pre_projector_0": model.unprojected(cells),
    }


def v1_backward(request: Request) -> Outcome:
    """Gradients of all weights."""
    model = _v1(request.case)
    return _backward(request, model, _v1_pictures(request, model), EVE)


def _v2_pictures(request: Request, model: EveDirectEmbedding) -> list[PatchCells]:
    return [cut(one, model.patch, model.window) for one in request.case.take(request.call)]


@torch.no_grad()
def v2_forward(request: Request) -> Outcome:
    """Tokens of pictures of several sizes."""
    model = _v2(request.case)
    pictures = request.case.take(request.call)
    assert [list(one.shape[1:]) for one in pictures] == request.case.config["sizes_hw"]
    return _ways(model, _v2_pictures(request, model))


@torch.no_grad()
def v2_steps(request: Request) -> Outcome:
    """Both maps: on the plane, and over cells."""
    model = _v2(request.case)
    (picture,) = request.case.take(request.call)
    patches, grid = model.patches(picture[None])
    plane = patches[0].T.unflatten(1, grid)
    cells, (rows, columns) = model.cells(F.gelu(plane)[None])
    packed = model(cut(picture, model.patch, model.window))[1:].unflatten(0, (rows, columns + 1))[:, :-1]
    return {"conv1_0": plane, "conv2_0": (cells[0].T.unflatten(1, (rows, columns)), packed.permute(2, 0, 1))}


def v2_backward(request: Request) -> Outcome:
    """Gradients of all weights."""
    model = _v2(request.case)
    return _backward(request, model, _v2_pictures(request, model), EVE_V2)


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"VisionTokenizer\.forward\(pixel_values, mm_projector\)")(v1_forward)
    system.call(r"intermediates of sample 0", lambda case, call: "mm_hidden_size" in case.config)(v1_steps)
    system.call(r"backward of sum over samples of mean\(tokens_i \*\* 2\)")(v1_backward)
    system.call(r"VisionTokenizer\.forward\(list of images\)")(v2_forward)
    system.call(r"intermediates of image 0")(v2_steps)
    system.call(r"backward of sum of mean\(tokens_i \*\* 2\)")(v2_backward)
