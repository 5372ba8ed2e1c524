"""Fast-BEV's case of the whole detector: features, maps of the head, objects, losses and gradients."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import listed_names, take_known
from systems.fast_bev_parts.encoders import thinned
from systems.fast_bev_parts.head import free_anchor, head
from systems.fast_bev_parts.shared import backbone, bev_encoder, cameras, fusions, grids, lift, pyramid
from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.fast_ray import gather_voxels
from multimodal_zoo.checkpoints.tables.fast_bev import FAST_BEV
from multimodal_zoo.objectives.detection_batch import DetectionBatch
from multimodal_zoo.registry import build

KEYS = {"model", "input_size", "n_times", "adjacent_ids", "note"}
MODEL = {
    "type", "style", "backbone", "neck", "neck_fuse", "neck_3d", "seg_head", "bbox_head", "multi_scale_id", "n_voxels",
    "voxel_size", "train_cfg", "test_cfg", "multi_scale_3d_scaler", "backproject", "with_cp", "extrinsic_noise",
}  # fmt: skip
#: Mean and deviation of red, green and blue, 0 to 255 (the published `img_norm_cfg`).
MEAN, DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def detector(case: Case) -> FastBEV:
    """The model of a case with its weights, in evaluation mode."""
    config = take_known(case.config, KEYS, "config")
    given = take_known(config["model"], MODEL, "model")
    assert given["type"] == "FastBEV"
    assert given.get("seg_head") is None
    assert isinstance(given.get("with_cp", False), bool)  # memory, not values
    assert given.get("extrinsic_noise", 0) == 0
    assert not given["test_cfg"].get("use_tta", False), "use_tta: pictures have no mirrored copies here"
    turned = [given[name].get("is_transpose", False) for name in ("neck_3d", "bbox_head")]
    assert sum(turned) == 1, "neck_3d or bbox_head brings (x, y) to (y, x), one of the two"
    assert given.get("backproject", "inplace") in ("inplace", "vanilla")
    overlap = "last" if given.get("backproject", "inplace") == "inplace" else "mean"
    levels = given["multi_scale_id"]
    model: FastBEV = build(
        {
            "type": "fast_bev",
            "frames": config["n_times"],
            "image_encoder": backbone(given["backbone"]),
            "pyramid": pyramid(given["neck"]),
            "fusions": fusions(given["neck_fuse"], levels),
            "lift": lift(given["style"], grids(given), len(levels), given.get("multi_scale_3d_scaler"), overlap),
            "bev_encoder": bev_encoder(given["neck_3d"]),
            "head": head(given["bbox_head"], given["test_cfg"]),
        }
    )
    model.load_state_dict(FAST_BEV.load(case.state), strict=True)
    return model.eval()


def _model(case: Case) -> FastBEV:
    return case.once("detector", lambda: detector(case))


def inputs(request: Request) -> tuple[Tensor, Cameras]:
    """Normalised pictures of all frames, each rolled to the right by what the first call's note says, and cameras."""
    case = request.case
    pictures, matrices = case.tensors["images"], case.tensors["lidar2img"]
    frames = case.config["n_times"]
    step = re.search(r"rolled by (\d+)\*t columns", case.calls[0].note)
    assert step is not None
    rgb = pictures.flip(-1).permute(0, 3, 1, 2).float()
    normal = (rgb - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    images = torch.stack([normal.roll(int(step[1]) * frame, -1) for frame in range(frames)])[None]
    return images, cameras(matrices, case.config["input_size"], frames)


@torch.no_grad()
def features(request: Request) -> Outcome:
    """A camera's map, the volume of a frame, and the map in bird's-eye view."""
    model, (images, seen) = _model(request.case), inputs(request)
    maps = model.encode(images)
    lifting = model.lift
    tables = lifting.tables(seen, [(one.shape[-2], one.shape[-1]) for one in maps])
    level, grid = lifting.pairs[0]
    volume = gather_voxels(maps[level], tables[0], lifting.grids[grid])[0]
    bev = model.bev(maps, seen)
    bev = bev.mT if request.case.config["model"]["neck_3d"].get("is_transpose") else bev
    tensors, note, found = request.case.tensors, request.call.note, {}
    for name in request.call.outputs:
        if taken := re.fullmatch(r"fused_cam(\d+)", name):
            found[name] = thinned(maps[0][0, 0, int(taken[1])], tensors[name], note, 0)
        elif taken := re.fullmatch(r"volume_frame(\d+)", name):
            whole = volume[..., int(taken[1]), :].permute(3, 0, 1, 2)[:, ::2, ::2]
            found[name] = thinned(whole, tensors[name], note, 0)
        else:
            found[name] = thinned(bev[0], tensors[name], note, 0)
    return found


@torch.no_grad()
def head_maps(request: Request) -> Outcome:
    """Some channels of the head's maps, every second row and column."""
    model, (images, seen) = _model(request.case), inputs(request)
    maps, tensors = model(images, seen), request.case.tensors
    found = dict(zip(("cls_score", "bbox_pred", "dir_cls_pred"), maps, strict=True))
    note = request.call.note
    return {name: thinned(found[name][0, :, ::2, ::2], tensors[name], note, 0) for name in request.call.outputs}


def objects(request: Request) -> Outcome:
    """What is found; the published order of equal scores means nothing, so ours is brought into it."""
    model, (images, seen) = _model(request.case), inputs(request)
    (found,) = model.predict(images, seen)
    tensors = request.case.tensors
    expected = torch.cat((tensors["labels"][:, None] * 100.0, tensors["boxes"]), 1).double()
    ours = torch.cat((found.labels[:, None] * 100.0, found.boxes), 1).double()
    assert len(ours) == len(expected), f"{len(ours)} boxes, {len(expected)} expected"
    order = torch.cdist(expected, ours).argmin(1)
    assert len(set(order.tolist())) == len(order)
    return {"boxes": found.boxes[order], "scores": found.scores[order], "labels": found.labels[order]}


def training(request: Request) -> Outcome:
    """Losses, norms of gradients, and the running means of batch norms after a step."""
    case, call = request.case, request.call
    model, (images, seen) = detector(case).train(), inputs(request)
    given = case.config["model"]
    boxes, labels = case.tensors["gt_boxes"], case.tensors["gt_labels"].long()
    known = torch.ones(len(labels), dtype=torch.bool)
    batch = DetectionBatch(images, seen, (boxes,), (labels,), (known,), ("real",))
    objective: Any = build(free_anchor(given["bbox_head"], given["train_cfg"]))
    losses = objective(model, batch)
    losses["loss"].backward()
    gradients = FAST_BEV.save({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    names = listed_names(call.note, case.manifest)
    state = FAST_BEV.save(model.state_dict())
    return {
        "losses": torch.stack([losses["positive"], losses["negative"]]),
        "grad_norms": torch.stack([gradients[name].norm() for name in names]),
        "neck3d_running_mean": state["neck_3d.model.1.bn.running_mean"],
        "backbone_running_mean": state["backbone.layer2.0.bn1.running_mean"],
    }


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The methods of these cases."""
    system.call(r"FastBEV\.extract_feat")(features)
    system.call(r"FastBEV\.bbox_head")(head_maps)
    system.call(r"FastBEV\.simple_test")(objects)
    system.call(r"FastBEV\.forward_train in train mode, backward")(training)
