"""nuScenes' detection metrics on made-up boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from harness.cases import Case
from harness.run import Outcome, Request, System
from harness.words import take_known
from torch import Tensor

from multimodal_zoo.evaluation.nuscenes_boxes import ERRORS, GlobalBoxes, NuScenesProtocol
from multimodal_zoo.evaluation.nuscenes_curves import RECALLS, Curves
from multimodal_zoo.evaluation.nuscenes_filter import counted
from multimodal_zoo.evaluation.nuscenes_metrics import DetectionScores, class_curves, detection_scores

#: The published names of the errors, in our order.
CURVES = dict(zip(("trans_err", "scale_err", "orient_err", "vel_err", "attr_err"), ERRORS, strict=True))


def protocol(config: Mapping[str, Any]) -> NuScenesProtocol:
    """The rules in their published names."""
    given = take_known(config, {"classes", "attributes", "metric_config", "note"}, "config")
    known = {
        "class_range", "dist_fcn", "dist_ths", "dist_th_tp", "min_recall", "min_precision", "max_boxes_per_sample",
        "mean_ap_weight",
    }  # fmt: skip
    rules = take_known(given["metric_config"], known, "metric_config")
    assert rules["dist_fcn"] == "center_distance"
    ranges = {name: rules["class_range"][name] for name in given["classes"]}
    assert ranges == rules["class_range"]
    return NuScenesProtocol(
        classes=given["classes"],
        attributes=given["attributes"],
        class_range=ranges,
        distances=rules["dist_ths"],
        error_distance=rules["dist_th_tp"],
        min_recall=rules["min_recall"],
        min_precision=rules["min_precision"],
        max_boxes=rules["max_boxes_per_sample"],
        ap_weight=rules["mean_ap_weight"],
    )


def boxes(tensors: Mapping[str, Tensor], side: str) -> GlobalBoxes:
    """Annotated (`gt`) or detected (`pred`) boxes of a case."""
    array = {name.removeprefix(f"{side}_"): one.numpy() for name, one in tensors.items() if name.startswith(side)}
    count = len(array["sample"])
    velocity = array["velocity_f64"].copy()
    velocity[array["velocity_is_nan"].astype(bool)] = np.nan
    return GlobalBoxes(
        sample=array["sample"],
        translation=array["translation_f64"],
        size=array["size_f64"],
        rotation=array["rotation_f64"],
        velocity=velocity,
        label=array["label"],
        attribute=array["attribute"],
        score=array.get("score_f64", np.full(count, -1.0)),
        points=array.get("num_pts", np.full(count, -1)),
    )


def _racks(tensors: Mapping[str, Tensor], samples: int) -> list[np.ndarray]:
    """Racks of each sample; not turned where the case has no rotations."""
    count = len(tensors["rack_sample"])
    level = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64).expand(count, 4)
    parts = (tensors["rack_translation_f64"], tensors["rack_size_f64"], tensors.get("rack_rotation_f64", level))
    rows = torch.cat(parts, dim=1).numpy()
    return [rows[tensors["rack_sample"].numpy() == number] for number in range(samples)]


def _kept(case: Case) -> dict[str, np.ndarray]:
    """Which boxes of both sides count."""
    tensors, rules = case.tensors, protocol(case.config)
    ego = tensors["ego_translation_f64"].numpy()
    racks = _racks(tensors, len(ego))
    return {side: counted(boxes(tensors, side), rules, ego, racks) for side in ("gt", "pred")}


def kept(request: Request) -> Outcome:
    """Which boxes are compared."""
    found = request.case.once("kept", lambda: _kept(request.case))
    return {output: torch.from_numpy(found[output.removesuffix("_kept")]) for output in request.call.outputs}


def _sides(case: Case) -> tuple[GlobalBoxes, GlobalBoxes]:
    rows = case.once("kept", lambda: _kept(case))
    truth, found = (boxes(case.tensors, side).take(rows[side]) for side in ("gt", "pred"))
    return truth, found


def _curve(curves: Curves, name: str) -> np.ndarray:
    """One curve by its published name."""
    if name in CURVES:
        return curves.errors[ERRORS.index(CURVES[name])]
    return {"precision": curves.precision, "confidence": curves.confidence, "recall": RECALLS}[name]


def curves_of_class(request: Request) -> Outcome:
    """Curves of one class at one distance, both named in the method."""
    rules, (name, metres) = protocol(request.case.config), request.match.groups()
    truth, found = _sides(request.case)
    one = class_curves(truth, found, rules, rules.classes.index(name))[float(metres)]
    return {
        output: torch.from_numpy(_curve(one, output.removeprefix(f"{name}_").removesuffix("_f64")).copy())
        for output in request.call.outputs
    }


def scores(request: Request) -> Outcome:
    """All figures."""
    truth, found = _sides(request.case)
    result: DetectionScores = detection_scores(truth, found, protocol(request.case.config))
    figures = {
        "ap_f64": result.average_precision,
        "tp_error_f64": np.nan_to_num(result.errors),
        "tp_error_is_nan": np.isnan(result.errors),
        "summary_f64": np.array(list(result.summary().values())),
    }
    return {output: torch.from_numpy(figures[output]) for output in request.call.outputs}


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The methods of this case."""
    system.call(r"nuscenes\.eval\.common\.loaders\.add_center_dist \+ filter_eval_boxes")(kept)
    system.call(r"nuscenes\.eval\.detection\.algo\.accumulate, class (\w+), ([\d.]+) m")(curves_of_class)
    system.call(r"calc_ap, calc_tp, DetectionMetrics")(scores)
