"""EVE's cases of the patch aligning layer, on given states and given features of a teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from systems.eve_parts.shared import gradients, norms, part, preprocessor
from torch import Tensor

from multimodal_zoo.checkpoints.tables.eve import EVE_TRAINING
from multimodal_zoo.decoders.patch_aligning import PatchAligning, Taps, cells_per_patch, patch_places
from multimodal_zoo.encoders.masked_student import PatchFeatures
from multimodal_zoo.nn.masked_canvas import Box, valid_box
from multimodal_zoo.nn.patch_cells import Grid
from multimodal_zoo.objectives.patch_alignment import no_distance, picture_distances

FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}
CALL_FIELDS = {"grad_norms"}
PREFIX = "aligner."
KEYS = {
    "llm_size", "num_layer", "layer_rate", "num_heads", "clip_hidden_size", "preprocessor", "patch_ratio", "samples",
    "image_token_index",
}  # fmt: skip


class Shown(NamedTuple):
    """The pictures of a batch.

    Attributes:
        rows: which rows of the batch have one.
        vision: bool (batch, tokens), where their tokens stand.
        grids: rows and columns of cells.
        boxes: patches of the teacher.
    """

    rows: list[int]
    vision: Tensor
    grids: list[Grid]
    boxes: list[Box]


def _aligner(case: Case) -> PatchAligning:
    config = take_known(case.config, KEYS, "config")
    node = {
        "type": "patch_aligning", "width": config["llm_size"], "teacher_width": config["clip_hidden_size"],
        "depth": config["num_layer"], "every": config["layer_rate"], "heads": config["num_heads"],
    }  # fmt: skip
    return case.once("aligner", lambda: part(node, EVE_TRAINING, case.state, PREFIX))


def _shown(case: Case, ids: Tensor, features: Tensor, grids: Tensor, masks: Tensor | None) -> Shown:
    """Where the pictures stand; the box of a picture follows from the mask, or from the grid where there is none."""
    ratio, stride = case.config["patch_ratio"], preprocessor(case.config)["patch_stride_clip"]
    found = Shown([], torch.zeros(features.shape[:2], dtype=torch.bool), [], [])
    for number, row in enumerate(ids):
        places = (row == case.config["image_token_index"]).nonzero().flatten().tolist()
        if not places:
            continue
        ((start,), (rows, columns)) = places, grids[number].tolist()
        box = (0, 0, rows // ratio, columns // ratio) if masks is None else valid_box(masks[number, 0], stride)
        assert box is not None
        found.rows.append(number)
        found.grids.append((rows, columns))
        found.boxes.append(box)
        found.vision[number, start : start + 1 + rows * (columns + 1)] = True
    assert set(cells_per_patch(found.grids, found.boxes)) == {ratio}
    return found


def _tapped(aligner: PatchAligning, shown: Shown, features: Tensor) -> list[Tensor]:
    taps = Taps(aligner.taps, patch_places(shown.vision, shown.grids, cells_per_patch(shown.grids, shown.boxes)))
    for layer in range(features.shape[2]):
        taps(layer, features[:, :, layer])
    return taps.tapped()


def _distances(request: Request, features: Tensor) -> Tensor:
    """One for each picture."""
    ids, masks, teacher, _, grids = request.case.take(request.call)
    aligner, shown = _aligner(request.case), _shown(request.case, ids, features, grids, masks)
    known = preprocessor(request.case.config)
    side = known["image_size_clip"] // known["patch_stride_clip"]
    seen = PatchFeatures(teacher[shown.rows], (side, side))
    return picture_distances(aligner, _tapped(aligner, shown, features), seen, shown.boxes, "cosine")


@torch.no_grad()
def forward(request: Request) -> Outcome:
    """The loss, of each picture and of all."""
    found = _distances(request, request.case.take(request.call)[3])
    layers = torch.tensor(_aligner(request.case).taps)
    return {"loss": found.mean()[None], "loss_per_image": found, "layer_idx": layers}


@torch.no_grad()
def steps(request: Request) -> Outcome:
    """What comes between for the first picture."""
    ids, features, grids = request.case.take(request.call)
    aligner = _aligner(request.case)
    tapped = _tapped(aligner, _shown(request.case, ids[:1], features[:1], grids, None), features[:1])
    return {
        "projected_input_0": aligner.input_layer(tapped[0]),
        "projected_layers_0": aligner.projected(tapped),
        "student_0": aligner(tapped),
    }


def backward(request: Request) -> Outcome:
    """Gradients of the states and of all weights."""
    aligner = _aligner(request.case)
    aligner.zero_grad()
    features = request.case.take(request.call)[3].requires_grad_()
    _distances(request, features).mean().backward()
    grad = features.grad
    assert grad is not None
    return {
        "grad_all_features_norm_per_layer": grad.transpose(0, 2).flatten(1).norm(dim=1),
        "grad_all_features_norm_per_sample": grad.flatten(1).norm(dim=1),
        "grad_all_features_0_top": grad[0, :, -1],
        **norms(request.call, gradients(aligner, EVE_TRAINING, PREFIX)),
    }


def without_pictures(request: Request) -> Outcome:
    """A batch of text alone: zero, and every weight takes part."""
    _, features = request.case.take(request.call)
    aligner = _aligner(request.case)
    aligner.zero_grad()
    loss = no_distance(aligner, [features[:, 0, layer] for layer in aligner.taps])
    loss.backward()
    assert all(p.grad is not None and not p.grad.any() for p in aligner.parameters())
    return {"loss_no_image": loss}


def register(system: System) -> None:
    """Register the handlers of these cases' calls."""
    system.call(r"VisionCompressor\.forward\(input_ids, images, all_features, patch_hw\)")(forward)
    system.call(r"intermediates of sample 0", lambda case, call: "patch_ratio" in case.config)(steps)
    system.call(r"backward of loss", lambda case, call: "patch_ratio" in case.config)(backward)
    system.call(r"VisionCompressor\.forward on a batch without image tokens")(without_pictures)
