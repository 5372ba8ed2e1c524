"""Fast-BEV's cases of boxes: anchors, their coding, overlaps, angles, and the choice of boxes from maps."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from torch import Tensor

from multimodal_zoo.bev.anchors import AnchorGrid
from multimodal_zoo.bev.box_coder import YawHalves, decode, encode, sine_difference
from multimodal_zoo.bev.boxes import YAW
from multimodal_zoo.bev.geometry import wrapped
from multimodal_zoo.bev.head_maps import HeadMaps
from multimodal_zoo.bev.overlaps import nearest_overlaps, nearest_rectangles, rotated_overlaps
from multimodal_zoo.registry import build

Config = Mapping[str, Any]
CODER = {"anchor_generator", "featmap_size", "code_size", "dir_offset", "box_layout"}
SELECTION = {"test_cfg", "featmap_size_yx", "anchor_generator", "dir_offset", "dir_limit_offset", "note"}
#: What configurations hold; nothing reads the first two, and the method of a call says what `use_tta` does.
TEST = {
    "min_bbox_size", "nms_across_levels", "score_thr", "nms_pre", "max_num", "use_scale_nms", "use_tta",
    "use_rotate_nms", "nms_thr", "nms_type_list", "nms_thr_list", "nms_radius_thr_list", "nms_rescale_factor",
}  # fmt: skip


def anchors(config: Config) -> dict[str, Any]:
    """The node of an anchor grid."""
    known = {
        "type", "ranges", "sizes", "custom_values", "rotations", "reshape_out", "scales", "size_per_range",
        "align_corner",
    }  # fmt: skip
    given = take_known(config, known, "anchor_generator")
    assert given.get("type", "AlignedAnchor3DRangeGenerator") == "AlignedAnchor3DRangeGenerator"
    assert list(given.get("scales", [1])) == [1]
    assert not given.get("align_corner", False)
    assert given.get("size_per_range", True) or len(given["ranges"]) == 1
    return {
        "type": "anchor_grid",
        "ranges": given["ranges"],
        "sizes": given["sizes"],
        "rotations": given["rotations"],
        "motion": len(given.get("custom_values", ())),  # their values are never used: the numbers are 0
    }


def direction(config: Config) -> dict[str, Any]:
    """The node of the halves of a yaw."""
    return {"type": "yaw_halves", "offset": config["dir_offset"], "limit_offset": config.get("dir_limit_offset", 0)}


def selection(config: Config) -> dict[str, Any]:
    """The node of the choice of boxes."""
    given = take_known(config, TEST, "test_cfg")
    assert given.get("nms_across_levels", False) is False
    return {
        "type": "box_selection",
        "score_threshold": given.get("score_thr", 0.0),
        "candidates": max(0, given.get("nms_pre", -1)),
        "limit": given["max_num"],
        "suppressions": _by_class(given) if given["use_scale_nms"] else [_plain(given)],
    }


def _plain(given: Config) -> dict[str, Any]:
    kind = "rotated_suppression" if given["use_rotate_nms"] else "aligned_suppression"
    return {"type": kind, "threshold": given["nms_thr"]}


def _by_class(given: Config) -> list[dict[str, Any]]:
    names = ("nms_type_list", "nms_thr_list", "nms_radius_thr_list", "nms_rescale_factor")
    nodes: list[dict[str, Any]] = []
    for kind, threshold, radius, factor in zip(*(given[name] for name in names), strict=True):
        assert kind in ("rotate", "circle"), f"nms_type_list: {kind}"
        if kind == "circle":
            nodes.append({"type": "circle_suppression", "squared_distance": radius})
        else:
            nodes.append({"type": "rotated_suppression", "threshold": threshold, "factor": factor})
    return nodes


def _coder_config(case: Case) -> Config:
    config = take_known(case.config, CODER, "config")
    generator = build(anchors(config["anchor_generator"]))
    assert generator.code_size == config["code_size"]
    return config


def grid_anchors(request: Request) -> Outcome:
    """All anchors of a map."""
    config = _coder_config(request.case)
    generator: AnchorGrid = build(anchors(config["anchor_generator"]))
    rows, columns = config["featmap_size"]
    found = generator.boxes((rows, columns))
    if not config["anchor_generator"].get("reshape_out", True):
        found = found.view(1, rows, columns, len(generator.sizes), len(generator.rotations), -1)
    return {request.call.outputs[0]: found}


def coded(request: Request) -> Outcome:
    """Differences of boxes from anchors; the way back is the second way."""
    _coder_config(request.case)
    source, boxes = request.case.take(request.call)
    return {request.call.outputs[0]: encode(source, boxes)}


def decoded(request: Request) -> Outcome:
    """Boxes from differences."""
    _coder_config(request.case)
    source, deltas = request.case.take(request.call)
    return {request.call.outputs[0]: (decode(source, deltas), decode(source.double(), deltas.double()))}


def direction_target(request: Request) -> Outcome:
    """The half of each yaw."""
    config = _coder_config(request.case)
    source, deltas = request.case.take(request.call)
    halves: YawHalves = build(direction(config))
    assert halves.target(source[:, YAW]).shape == source[:, YAW].shape
    return {request.call.outputs[0]: halves.target(source[:, YAW] + deltas[:, YAW])}


def nearest(request: Request) -> Outcome:
    """The axis-aligned rectangle of each box."""
    (boxes,) = request.case.take(request.call)
    return {request.call.outputs[0]: nearest_rectangles(boxes)}


def nearest_iou(request: Request) -> Outcome:
    """Overlaps of such rectangles."""
    return {request.call.outputs[0]: nearest_overlaps(*request.case.take(request.call))}


def sine(request: Request) -> Outcome:
    """The terms of the sine of a difference; all else stays."""
    given = request.case.take(request.call)
    found = sine_difference(*given)
    for before, after in zip(given, found, strict=True):
        assert torch.equal(before[:, :YAW], after[:, :YAW])
        assert torch.equal(before[:, YAW + 1 :], after[:, YAW + 1 :])
    return {name: one[:, YAW] for name, one in zip(request.call.outputs, found, strict=True)}


def rotated_iou(request: Request) -> Outcome:
    """Exact overlaps, in both precisions and in both orders."""
    (boxes,) = request.case.take(request.call)
    exact = boxes.double()
    found = rotated_overlaps(exact[:, None], exact[None])
    return {request.call.outputs[0]: (found, found.T, rotated_overlaps(boxes[:, None], boxes[None]))}


def limited(request: Request) -> Outcome:
    """Angles in one period, with the offsets and periods of the note."""
    (angles,) = request.case.take(request.call)
    found: dict[str, Tensor] = {}
    for name in request.call.outputs:
        label = re.escape(name.rpartition("_")[2])
        match = re.search(rf"\b{label}: offset ([-\d.]+), period ([\d.]*)\*?(pi)?", request.call.note)
        assert match, f"the note gives no offset and period for {name}"
        found[name] = wrapped(angles, float(match[1]), float(match[2] or 1) * (math.pi if match[3] else 1))
    return found


def _maps(request: Request) -> HeadMaps:
    given = dict(zip(request.call.inputs, request.case.take(request.call), strict=True))
    take_known(given, {"cls_score", "bbox_pred", "dir_cls_pred"}, "inputs")
    directions = given.get("dir_cls_pred")
    return HeadMaps(
        given["cls_score"][None], given["bbox_pred"][None], None if directions is None else directions[None]
    )


def _selected(request: Request, passes: list[HeadMaps], test: Config) -> Outcome:
    config = take_known(request.case.config, SELECTION, "config")
    assert all(list(maps.size) == list(config["featmap_size_yx"]) for maps in passes)
    generator = build(anchors(config["anchor_generator"]))
    halves = build(direction(config)) if passes[0].directions is not None else None
    (found,) = build(selection(test))(passes, generator, halves)
    by_kind = {"boxes": found.boxes, "scores": found.scores, "labels": found.labels}
    return {name: by_kind[name.split("_")[0]] for name in request.call.outputs}


def selected(request: Request) -> Outcome:
    """The boxes of one pass; flags in the note go before those of the configuration."""
    test = dict(request.case.config["test_cfg"])
    flags = {name: ast.literal_eval(value) for name, value in re.findall(r"(\w+)=(True|False)", request.call.note)}
    if "use_rotate_nms" in flags:
        flags.setdefault("use_scale_nms", False)  # the only path that looks at it
    threshold = re.search(r"nms_thr ([\d.]+)", request.call.note)
    plain = {"nms_thr": float(threshold[1])} if threshold else {}
    return _selected(request, [_maps(request)], test | flags | plain)


def selected_of_two(request: Request) -> Outcome:
    """The boxes of two passes together; the note says how the second one's maps come from the first one's."""
    number = r"([-+]?[\d.]+)"
    change = re.search(rf"cls\*{number}{number}?, reg\*{number}, (-?)dir", request.call.note)
    assert change, f"the note does not say what the second maps are: {request.call.note}"
    maps = _maps(request)
    assert maps.directions is not None
    second = HeadMaps(
        maps.classes * float(change[1]) + float(change[2] or 0),
        maps.boxes * float(change[3]),
        -maps.directions if change[4] else maps.directions,
    )
    return _selected(request, [maps, second], request.case.config["test_cfg"])


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The methods of these cases."""
    system.call(r"AlignedAnchor3DRangeGenerator\.grid_anchors")(grid_anchors)
    system.call(r"DeltaXYZWLHRBBoxCoder\.encode")(coded)
    system.call(r"DeltaXYZWLHRBBoxCoder\.decode")(decoded)
    system.call(r"get_direction_target\(.*\)")(direction_target)
    system.call(r"LiDARInstance3DBoxes\.nearest_bev")(nearest)
    system.call(r"bbox_overlaps_nearest_3d")(nearest_iou)
    system.call(r"Anchor3DHead\.add_sin_difference\(.*\)")(sine)
    system.call(r"rotated BEV IoU .*")(rotated_iou)
    system.call(r"limit_period")(limited)
    system.call(r"Anchor3DHead\.get_bboxes")(selected)
    system.call(r"Anchor3DHead\.get_tta_bboxes")(selected_of_two)
