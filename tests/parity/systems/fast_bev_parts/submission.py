"""Detections in the form of nuScenes' submissions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known

from multimodal_zoo.evaluation.nuscenes_boxes import NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_submission import global_boxes, meta_of

ARGUMENTS = ("boxes", "scores", "labels", "ego2global_f64", "lidar2ego_f64")


def global_results(request: Request) -> Outcome:
    """Boxes in the frame of the map; the case's first attribute is none at all."""
    config = take_known(request.case.config, {"classes", "attributes", "moving_threshold", "meta"}, "config")
    empty = config["attributes"].index("")
    names = [name for name in config["attributes"] if name]
    assert meta_of(config["meta"]) == config["meta"]
    boxes, scores, labels, ego2global, lidar2ego = (request.case.tensors[name].clone() for name in ARGUMENTS)
    assert set(request.call.inputs) == set(ARGUMENTS)
    rules = NuScenesProtocol(classes=config["classes"], attributes=names)
    found = global_boxes(boxes, scores, labels, lidar2ego, ego2global, rules, moving=config["moving_threshold"])
    numbers = torch.tensor([config["attributes"].index(names[one]) if one >= 0 else empty for one in found.attribute])
    columns = {
        "out_translation_f64": torch.from_numpy(found.translation),
        "out_size_f64": torch.from_numpy(found.size),
        "out_rotation_f64": torch.from_numpy(found.rotation),
        "out_velocity_f64": torch.from_numpy(found.velocity),
        "out_label": torch.from_numpy(found.label),
        "out_score_f64": torch.from_numpy(found.score),
        "out_attribute": numbers,
    }
    return {output: columns[output] for output in request.call.outputs}


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The method of this case."""
    system.call(r"NuScenesDataset\._format_bbox")(global_results)
