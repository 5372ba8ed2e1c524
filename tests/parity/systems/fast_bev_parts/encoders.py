"""Fast-BEV's cases of convolutional parts: image encoder, pyramid, encoder in bird's-eye view."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import listed_names, take_known
from systems.fast_bev_parts.shared import backbone, bev_encoder, filled, fusions, pyramid
from torch import Tensor

from multimodal_zoo.bev.fast_ray import folded
from multimodal_zoo.checkpoints.tables.fast_bev import FAST_BEV


def _image_model(case: Case) -> Any:
    keys = {"backbone", "neck", "neck_fuse", "multi_scale_id", "style", "note"}
    config = take_known(case.config, keys, "config")
    parts: dict[str, Any] = {"image_encoder": backbone(config["backbone"]), "pyramid": pyramid(config["neck"])}
    if "neck_fuse" in config:
        parts["fusions"] = fusions(config["neck_fuse"], config["multi_scale_id"])
    return case.once("image", lambda: filled(case, parts))


def thinned(whole: Tensor, kept: Tensor, note: str, axis: int = 1) -> Tensor:
    """Every nth channel, as many as a case keeps; n is 1 or stands in the note, as `4th` or `2nd`."""
    count, channels = whole.shape[axis], kept.shape[axis]
    steps = [1, *(int(number) for number in re.findall(r"\b(\d+)(?:nd|rd|th)\b", note))]
    step = next((step for step in steps if -(-count // step) == channels), -(-count // channels))
    return whole.index_select(axis, torch.arange(0, whole.shape[axis], step))


@torch.no_grad()
def image_maps(request: Request) -> Outcome:
    """Maps of stages (c2 to c5), of the pyramid (p2 to p5), fused ones, and offsets of a deformable convolution."""
    model = _image_model(request.case)
    (image,) = request.case.take(request.call)
    offsets: dict[str, Tensor] = {}
    for name in request.call.outputs:
        if name.startswith("offsets_layer"):
            stage, block = name.removeprefix("offsets_layer").split("_")
            layer = model.image_encoder.get_submodule(f"layer{stage}.{block}.conv2.conv_offset")
            layer.register_forward_hook(lambda one, given, result, name=name: offsets.update({name: result}))
    stages = model.image_encoder(image)
    levels = model.pyramid(stages)
    found: dict[str, Tensor] = {**offsets}
    found |= {f"c{number + 2}": one for number, one in enumerate(stages)}
    found |= {f"p{number + 2}": one for number, one in enumerate(levels)}
    if hasattr(model, "fusions"):
        found |= {f"fused_{name}": fusion(levels)[0] for name, fusion in model.fusions.items()}
    tensors = request.case.tensors
    return {
        name: thinned(found[name], tensors[name], request.call.note, 0 if name.startswith("fused") else 1)
        for name in request.call.outputs
    }


def _bev_model(case: Case) -> Any:
    return case.once("bev", lambda: filled(case, {"bev_encoder": bev_encoder(case.config)}))


def _folded(volume: Tensor) -> Tensor:
    """`(n, C, x, y, z)` as the view transform gives it, `(n, z C, x, y)`."""
    return folded([volume.permute(0, 2, 3, 4, 1)[..., None, :]])


def _oriented(case: Case, maps: Tensor) -> Tensor:
    return maps.transpose(-1, -2) if case.config.get("is_transpose") else maps


@torch.no_grad()
def bev_maps(request: Request) -> Outcome:
    """The encoder's result and what stands inside of it."""
    case = request.case
    encoder = _bev_model(case).bev_encoder
    (volume,) = case.take(request.call)
    flat = _folded(volume)
    fused = flat if encoder.fuse is None else encoder.fuse(flat)
    block = encoder.layers[0](fused)
    found = {
        "s2c_sample": flat[:, :, ::4, ::4],
        "fused": fused,
        "block0_sample": block[:, ::4],
        "downsampled": encoder.layers[1](block),
        "bev": _oriented(case, encoder(flat)),
    }
    return {name: found[name] for name in request.call.outputs}


def bev_training(request: Request) -> Outcome:
    """Batch statistics, and the gradients of a loss that the note defines, by names that it lists."""
    case, call = request.case, request.call
    assert call.note.startswith("loss = mean(bev * cos(0.13*i)), i the flat index")
    model = filled(case, {"bev_encoder": bev_encoder(case.config)}).train()
    (volume,) = case.take(call)
    bev = _oriented(case, model.bev_encoder(_folded(volume)))
    wave = torch.cos(0.13 * torch.arange(bev.numel(), dtype=torch.float64)).float().view(bev.shape)
    loss = (bev * wave).mean()
    loss.backward()
    gradients = FAST_BEV.save({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    names = listed_names(call.note, case.manifest)
    norms = torch.stack([gradients[name].norm() for name in names])
    return {"train_bev": bev, "train_loss": loss.reshape(case.tensors["train_loss"].shape), "train_grad_norms": norms}


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The methods of these cases."""
    system.call(r"FastBEV\.backbone")(image_maps)
    system.call(r"FastBEV\.neck \(FPN\)")(image_maps)
    system.call(r"FastBEV\.extract_feat up to the view transform.*")(image_maps)
    system.call(r"ResNet with deformable stages.*")(image_maps)
    system.call(r"M2BevNeck\.forward")(bev_maps)
    system.call(r"M2BevNeck\.forward in train mode.*")(bev_training)
