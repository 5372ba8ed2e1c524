"""Fast-BEV's cases of the head: its maps, the losses of bags and of assigned anchors, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import listed_names, take_known
from systems.fast_bev_parts.boxes import anchors, direction, selection
from systems.fast_bev_parts.encoders import thinned
from systems.fast_bev_parts.shared import filled
from torch import Tensor

from multimodal_zoo.bev.box_coder import YawHalves, encode
from multimodal_zoo.bev.boxes import CLASSES, YAW
from multimodal_zoo.bev.head_maps import HeadMaps
from multimodal_zoo.checkpoints.tables.fast_bev import FAST_BEV
from multimodal_zoo.objectives.anchor_matching import IGNORED
from multimodal_zoo.objectives.detection_targets import Objects, sample_objects
from multimodal_zoo.registry import build

Config = Mapping[str, Any]
HEAD = {
    "type", "is_transpose", "num_classes", "in_channels", "feat_channels", "num_convs", "use_direction_classifier",
    "pre_anchor_topk", "bbox_thr", "gamma", "alpha", "anchor_generator", "assigner_per_size", "assign_per_class",
    "diff_rad_by_sin", "dir_offset", "dir_limit_offset", "bbox_coder", "loss_cls", "loss_bbox", "loss_dir",
}  # fmt: skip
TRAIN = {"assigner", "allowed_border", "code_weight", "pos_weight", "debug"}
ASSIGNER = {
    "type", "iou_calculator", "pos_iou_thr", "neg_iou_thr", "min_pos_iou", "ignore_iof_thr", "match_low_quality",
    "gt_max_assign_all",
}  # fmt: skip
#: A choice of boxes for heads whose cases have none.
ANY_CHOICE: Config = {"use_scale_nms": False, "use_rotate_nms": True, "nms_thr": 0.2, "max_num": 500}


def head(config: Config, test: Config = ANY_CHOICE) -> dict[str, Any]:
    """The node of a head."""
    given = take_known(config, HEAD, "bbox_head")
    assert given.get("num_convs", 0) == 0
    assert given["in_channels"] == given["feat_channels"]
    coder = take_known(given["bbox_coder"], {"type", "code_size"}, "bbox_coder")
    assert coder["type"] == "DeltaXYZWLHRBBoxCoder"
    assert coder["code_size"] == 7 + len(given["anchor_generator"].get("custom_values", ()))
    numbers = range(given["num_classes"])
    return {
        "type": "anchor_head",
        "in_channels": given["in_channels"],
        "classes": [CLASSES[number] if number < len(CLASSES) else f"class_{number}" for number in numbers],
        "anchors": anchors(given["anchor_generator"]),
        "selection": selection(test),
        "direction": direction(given) if given["use_direction_classifier"] else None,
    }


def _box(config: Config, train: Config) -> dict[str, Any]:
    loss = take_known(config["loss_bbox"], {"type", "beta", "loss_weight"}, "loss_bbox")
    assert loss["type"] == "SmoothL1Loss"
    return {
        "type": "box_distance",
        "weight": loss["loss_weight"],
        "beta": loss["beta"],
        "number_weights": train.get("code_weight") or [1.0] * config["bbox_coder"]["code_size"],
        "sine": config["diff_rad_by_sin"],
    }


def _shared(config: Config, train: Config) -> dict[str, Any]:
    take_known(config, HEAD, "bbox_head")
    take_known(train, TRAIN, "train_cfg")
    crossed = take_known(config["loss_dir"], {"type", "use_sigmoid", "loss_weight"}, "loss_dir")
    assert crossed["type"] == "CrossEntropyLoss"
    assert not crossed["use_sigmoid"]
    return {"box": _box(config, train), "direction_weight": crossed["loss_weight"]}


def free_anchor(config: Config, train: Config) -> dict[str, Any]:
    """The node of the loss of bags, which leaves assigners and the focal loss aside."""
    names = {"bag": "pre_anchor_topk", "threshold": "bbox_thr", "gamma": "gamma", "alpha": "alpha"}
    return {
        "type": "free_anchor",
        **{ours: config[theirs] for ours, theirs in names.items()},
        **_shared(config, train),
        "normalise": "process",
        "legacy_nan_velocity": True,
    }


def assigned_anchors(config: Config, train: Config) -> dict[str, Any]:
    """The node of the loss of assigned anchors."""
    focal = take_known(config["loss_cls"], {"type", "use_sigmoid", "gamma", "alpha", "loss_weight"}, "loss_cls")
    assert focal["type"] == "FocalLoss"
    assert focal["use_sigmoid"]
    rules = train["assigner"]
    if isinstance(rules, Mapping):
        matchings = [_matching(rules, None)]
    else:
        own = config.get("assign_per_class", False)
        matchings = [_matching(rule, number if own else None) for number, rule in enumerate(rules)]
    weight = train.get("pos_weight", -1)
    return {
        "type": "assigned_anchors",
        "matchings": matchings,
        "gamma": focal["gamma"],
        "alpha": focal["alpha"],
        "class_weight": focal["loss_weight"],
        "positive_weight": weight if weight > 0 else 1.0,
        **_shared(config, train),
        "normalise": "process",
        "legacy_nan_velocity": True,
    }


def _matching(config: Config, label: int | None) -> dict[str, Any]:
    given = take_known(config, ASSIGNER, "assigner")
    assert given["type"] == "MaxIoUAssigner"
    assert given.get("ignore_iof_thr", -1) <= 0
    assert given["iou_calculator"] == {"type": "BboxOverlapsNearest3D"}
    best = "none"
    if given.get("match_low_quality", True):
        best = "all" if given.get("gt_max_assign_all", True) else "first"
    return {
        "type": "anchor_matching",
        "positive": given["pos_iou_thr"],
        "negative": given["neg_iou_thr"],
        "least": given.get("min_pos_iou", 0.0),
        "best_anchors": best,
        "label": label,
    }


def _config(case: Case) -> Config:
    return take_known(case.config, {"bbox_head", "train_cfg", "assign", "featmap_size_yx", "gt", "note"}, "config")


def _model(case: Case) -> Any:
    return case.once("head", lambda: filled(case, {"head": head(_config(case)["bbox_head"])}))


def _inputs(request: Request) -> dict[str, Tensor]:
    return dict(zip(request.call.inputs, request.case.take(request.call), strict=True))


def _objects(given: Mapping[str, Tensor], config: Config) -> list[Objects]:
    """Objects of each sample, from inputs `gt_boxes_0`, `gt_labels_0` and so on."""
    count = sum(name.startswith("gt_boxes_") for name in given)
    boxes, labels = ([given[f"gt_{kind}_{number}"] for number in range(count)] for kind in ("boxes", "labels"))
    known = [torch.ones(len(one), dtype=torch.bool) for one in labels]
    size = config["bbox_coder"]["code_size"]
    parts = enumerate(zip(boxes, labels, known, strict=True))
    return [sample_objects(str(k), b[:, :size], n.long(), v, config["num_classes"]) for k, (b, n, v) in parts]


def _maps(given: Mapping[str, Tensor]) -> tuple[HeadMaps, list[Tensor]]:
    """Maps, and those of them that exist as leaves."""
    leaves = [given[name].requires_grad_() for name in ("cls_score", "bbox_pred", "dir_cls_pred") if name in given]
    return HeadMaps(leaves[0], leaves[1], leaves[2] if len(leaves) == 3 else None), leaves


def _turned(features: Tensor, config: Config) -> Tensor:
    """Maps with x before y, as the head takes them."""
    return features if config.get("is_transpose", False) else features.mT


@torch.no_grad()
def maps_of_head(request: Request) -> Outcome:
    """What the three convolutions give."""
    case = request.case
    config = _config(case)["bbox_head"]
    found = _model(case).head(_turned(_inputs(request)["features"], config))
    assert list(found.size) == list(case.config["featmap_size_yx"])
    by_name = {"cls_from_features": found.classes, "reg_from_features": found.boxes}
    if found.directions is not None:
        by_name["dir_from_features"] = found.directions
    return {name: thinned(by_name[name], case.tensors[name], request.call.note) for name in request.call.outputs}


def _norms(gradients: Sequence[Tensor]) -> Tensor:
    return torch.stack([one.norm() for one in gradients])


def bag_loss(request: Request) -> Outcome:
    """Both terms and their gradients on given maps; object by object is the second way."""
    config, given = _config(request.case), _inputs(request)
    part, node = _model(request.case).head, free_anchor(config["bbox_head"], config["train_cfg"])
    objects = _objects(given, config["bbox_head"])
    found: dict[str, list[Tensor]] = {name: [] for name in request.call.outputs}
    for held in (2**21, 1):
        maps, leaves = _maps(given)
        losses = build(node | {"held": held}).of_maps(part, maps, objects)
        gradients = torch.autograd.grad(losses["loss"], leaves)
        outcome = {"positive_bag_loss": losses["positive"], "negative_bag_loss": losses["negative"]}
        outcome["grad_norms"] = _norms(gradients)
        for name, one in zip(("cls", "reg", "dir"), gradients, strict=False):
            outcome[f"grad_{name}_sum"] = one.sum((0, 2, 3))
        for name in found:
            found[name].append(outcome[name].detach())
    return {name: tuple(ways) for name, ways in found.items()}


def bag_loss_of_features(request: Request) -> Outcome:
    """The same through the head, with gradients of its parameters."""
    config, given, model = _config(request.case), _inputs(request), _model(request.case)
    objects = _objects(given, config["bbox_head"])
    model.zero_grad()
    maps = model.head(_turned(given["features"], config["bbox_head"]))
    losses = build(free_anchor(config["bbox_head"], config["train_cfg"])).of_maps(model.head, maps, objects)
    losses["loss"].backward()
    gradients = FAST_BEV.save({name: one.grad for name, one in model.named_parameters()})
    names = listed_names(request.call.note, gradients)
    outcome = {
        "feature_losses": torch.stack([losses["positive"], losses["negative"]]),
        "feature_param_grad_norms": _norms([gradients[name] for name in names]),
    }
    return {name: outcome[name] for name in request.call.outputs}


def assigned_loss(request: Request) -> Outcome:
    """What is assigned to each anchor, and the losses and gradients; object by object is the second way."""
    config, given = _config(request.case), _inputs(request)
    changes = take_known(config["assign"], {"sizes", "assigner"}, "assign")
    generator = config["bbox_head"]["anchor_generator"] | {"sizes": changes["sizes"]}
    node = assigned_anchors(config["bbox_head"], config["train_cfg"] | {"assigner": changes["assigner"]})
    part = build(head(config["bbox_head"] | {"anchor_generator": generator}))
    objects = _objects(given, config["bbox_head"])
    found: dict[str, list[Tensor]] = {name: [] for name in request.call.outputs}
    for held in (2**21, 1):
        objective = build(node | {"held": held})
        maps, leaves = _maps(given)
        losses = objective.of_maps(part, maps, objects)
        outcome = _targets(objective, part, part.anchors.boxes(maps.size), objects)
        outcome["assign_losses"] = torch.stack([losses[name] for name in ("classes", "boxes", "directions")])
        outcome["assign_grad_norms"] = _norms(torch.autograd.grad(losses["loss"], leaves))
        for name in found:
            found[name].append(outcome[name].detach())
    return {name: tuple(ways) for name, ways in found.items()}


def _targets(objective: Any, part: Any, grid: Tensor, objects: Sequence[Objects]) -> dict[str, Tensor]:
    """Labels (the number of classes for background), weights, halves and the sum of the targets."""
    assigned = [objective.assigned(part, grid, one) for one in objects]
    labels = [one.new_full((len(grid),), len(part.class_names)) for one in assigned]
    halves = [torch.zeros_like(one) for one in assigned]
    total = torch.zeros(grid.shape[1])
    for number, one in enumerate(objects):
        places = (assigned[number] >= 0).nonzero()[:, 0]
        owners = assigned[number][places]
        target = encode(grid[places], one.boxes[owners])
        labels[number][places] = one.labels[owners]
        direction: YawHalves | None = part.direction
        if direction is not None:
            halves[number][places] = direction.target(target[:, YAW] + grid[places, YAW])
        total = total + target.sum(0)
    weights = [torch.where(one >= 0, objective.positive_weight, (one != IGNORED).float()) for one in assigned]
    return {
        "assigned_labels": torch.stack(labels),
        "label_weights": torch.stack(weights),
        "assigned_targets_sum": total,
        "assigned_dir": torch.stack(halves),
    }


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The methods of these cases."""
    system.call(r"FreeAnchor3DHead\.forward")(maps_of_head)
    system.call(r"FreeAnchor3DHead\.loss")(bag_loss)
    system.call(r"FreeAnchor3DHead\.loss\(forward\(features\)\), backward")(bag_loss_of_features)
    system.call(r"Anchor3DHead\.anchor_target_3d and \.loss .*")(assigned_loss)
