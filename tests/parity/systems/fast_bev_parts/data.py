"""Fast-BEV's cases of data: history, ground truth, augmentation of pictures and scenes, camera matrices."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from harness.cases import Call, Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from PIL import Image
from torch import Tensor

from multimodal_zoo.bev.geometry import lidar_to_image
from multimodal_zoo.data.bev_augment import BevAugment, BevChange, inside, turned_home
from multimodal_zoo.data.camera_augment import CameraAugment, CameraView, PictureChange, planes
from multimodal_zoo.data.camera_history import CameraHistory
from multimodal_zoo.data.camera_infos import CAMERA_NAMES, CameraInfo, SceneInfo, SceneObjects, Sweep
from multimodal_zoo.data.camera_processor import CameraProcessor, moved_pose
from multimodal_zoo.data.camera_truth import BoxTruth

HISTORY = {
    "n_times", "test_adj", "test_adj_ids", "min_interval", "max_interval", "sweep_spacing_s", "images", "note",
    "train_adj_ids", "prev_only", "next_only",
}  # fmt: skip
TRUTH = {"gt_names", "classes", "use_valid_flag", "speed_mode", "note"}
AUGMENT = {
    "data_config", "pixel_input_size", "rot_range", "scale_ratio_range", "translation_std", "flip_ratio", "mean", "std",
    "to_rgb",
}  # fmt: skip
PICTURES = {
    "src_size", "input_size", "resize", "crop", "rot", "flip", "test_input_size", "test_resize", "test_rotate",
    "test_flip", "pad", "pad_divisor", "pad_color",
}  # fmt: skip
SIDES = {"prev": "previous", "next": "following"}
NUMBER = r"(-?[\d.]+(?:e-?\d+)?)"


def _square(matrices: Tensor) -> Tensor:
    """Poses (n, 3 or 4, 4) as (n, 4, 4)."""
    whole = torch.eye(4, dtype=torch.float64).repeat(len(matrices), 1, 1)
    whole[:, : matrices.shape[1]] = matrices
    return whole


def _history(config: Mapping[str, Any], legacy: bool) -> CameraHistory:
    given = take_known(config, HISTORY, "config")
    frames, side = given["n_times"], given["test_adj"]
    for name, one in (("prev_only", "prev"), ("next_only", "next")):
        side = one if given.get(name) else side
    ids, train_ids = given.get("test_adj_ids"), given.get("train_adj_ids")
    interval = given["min_interval"], given["max_interval"]
    CameraHistory(frames, None if train_ids is None else train_ids[: frames - 1], interval)  # not used by these calls
    return CameraHistory(
        frames=frames,
        ids=None if ids is None else ids[: frames - 1],
        interval=interval,
        evaluation_direction=SIDES[side],
        legacy_history_camera_order=legacy,
    )


def history(request: Request) -> Outcome:
    """Which pictures are read, and where they were taken from, seen from now."""
    case, call = request.case, request.call
    names = list(dict.fromkeys(one.rpartition("/")[2] for one in next(iter(case.config["images"].values()))))
    now, lidar, poses, intrinsics, before, after = case.take(call)
    label = call.outputs[0].removeprefix("lidar2img_")
    counts = re.search(r"previous sweeps available (\d+), next (\d+)", call.note)
    assert counts is not None
    assert len(names) == len(poses)
    legacy = "BACK_RIGHT before BACK_LEFT" in call.note or "legacy" in label
    lists = []
    for side, egos, count in (("prev", before, int(counts[1])), ("next", after, int(counts[2]))):
        lists.append(
            [
                Sweep(0, egos[number].numpy(), {name: f"{side}{number}/{name}" for name in names})
                for number in range(count)
            ]
        )
    cameras = {
        name: CameraInfo(f"cur/{name}", intrinsics[place].numpy(), _square(poses)[place].numpy())
        for place, name in enumerate(names)
    }
    info = SceneInfo("sample", "", 0, lidar.numpy(), now.numpy(), cameras, *lists, np.zeros(2), None, None)
    processor = CameraProcessor(names, ["car"], CameraView([256, 704]), _history(case.config, legacy))
    read, matrices, moved = [], [], []
    for number, (paths, ego) in enumerate(processor.times(info, None)):
        for name, path in zip(names, paths, strict=True):
            pose = torch.from_numpy(cameras[name].sensor2lidar)
            pose = moved_pose(info, ego, pose) if number else pose
            read.append(path)
            moved.append(pose[:3])
            matrices.append(lidar_to_image(torch.from_numpy(cameras[name].intrinsic), pose))
    found = {"lidar2img": torch.stack(matrices), "sensor2lidar": torch.stack(moved)}
    outcome: dict[str, Any] = {name: found[name.removesuffix(f"_{label}")] for name in call.outputs[:2]}
    exact = case.tensors[call.outputs[2]]
    wrong = (found["lidar2img"] - exact).abs() - 1e-6 * exact.abs()
    outcome |= {call.outputs[2]: found["lidar2img"], "in float64": Pair(bool((wrong <= 1e-6).all()), True)}
    close = (found["sensor2lidar"] - case.tensors[call.outputs[1]]).abs().max()
    outcome |= {"sensor2lidar within 3e-4": Pair(bool(close < 3e-4), True)}
    return outcome | {"pictures": Pair(read, case.config["images"][label])}


def _scene(case: Case, call: Call) -> SceneInfo:
    given = case.tensors
    boxes = torch.cat([given["gt_boxes"], given["gt_velocity_relative"] + given["ego_velocity"]], dim=1).double()
    boxes[:, 2] -= boxes[:, 5] / 2
    boxes[given["velocity_is_nan"].bool(), 7:] = torch.nan
    names = tuple(case.config["gt_names"])
    objects = SceneObjects(
        boxes.numpy(),
        names,
        given["num_lidar_pts"].long().numpy(),
        np.zeros(len(names), dtype=np.int64),
        given["valid_flag"].bool().numpy(),
    )
    eye = np.eye(4)
    return SceneInfo("sample", "", 0, eye, eye, {}, [], [], given["ego_velocity"].double().numpy(), objects, None)


def truth(request: Request) -> Outcome:
    """Boxes and labels for the loss; the published velocity of objects whose own is not known."""
    case, call = request.case, request.call
    config = take_known(case.config, TRUTH, "config")
    words = {"abs_velo": "absolute", "relative_velo": "relative"}
    assert config["speed_mode"] in words, config["speed_mode"]
    told = re.search(r"use_valid_flag=(True|False)", call.method)
    by_flag = config["use_valid_flag"] if told is None else told[1] == "True"
    rule = BoxTruth("valid_flag" if by_flag else "lidar_points", words[config["speed_mode"]], "legacy")
    found = rule(_scene(case, call), config["classes"])
    if "drops label -1" in call.method:
        found = found.chosen(found.labels >= 0)
    tensors = {"boxes": found.boxes, "labels": found.labels}
    return {name: tensors[name.partition("_")[0]] for name in call.outputs}


def _pictures(config: Mapping[str, Any], size: tuple[int, int] | None = None) -> tuple[CameraAugment, CameraView]:
    given = take_known(config, PICTURES, "data_config")
    assert given.get("pad_divisor", 1) >= 1  # the published transform does not look at it
    augment = CameraAugment(given["resize"], given["crop"], given["rot"], 0.5 * bool(given["flip"]))
    view = CameraView(
        size or given["input_size"], pad=given.get("pad", (0, 0, 0, 0)), pad_colour=given.get("pad_color", (0, 0, 0))
    )
    return augment, view


def _test_view(config: Mapping[str, Any], size: tuple[int, int] | None = None, flip: bool | None = None) -> CameraView:
    given = take_known(config, PICTURES, "data_config")
    return CameraView(
        size or given["test_input_size"],
        given.get("test_resize", 0.0),
        given.get("test_flip", False) if flip is None else flip,
        given.get("test_rotate", 0.0),
        given.get("pad", (0, 0, 0, 0)),
        given.get("pad_color", (0, 0, 0)),
    )


def _config(case: Case) -> dict[str, Any]:
    return take_known(case.config, AUGMENT, "config")


def parameters(request: Request) -> Outcome:
    """What draws from 0 to 1 make of a picture."""
    (draws,) = request.case.take(request.call)
    data = _config(request.case)["data_config"]
    augment, view = _pictures(data)
    rows = []
    for units in draws.tolist():
        made = augment.made(tuple(data["src_size"]), view, units)
        rows.append([made.factor, *made.size, *made.crop, float(made.flip), made.degrees])
    return {request.call.outputs[0]: torch.tensor(rows, dtype=torch.float64)}


def _changes(rows: Tensor, view: CameraView) -> list[PictureChange]:
    return [
        view.padded(
            PictureChange(
                row[0],
                (int(row[1]), int(row[2])),
                (int(row[3]), int(row[4]), int(row[5]), int(row[6])),
                bool(row[7]),
                row[8],
            )
        )
        for row in rows.tolist()
    ]


def _apart(maps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The published pair of a matrix and a shift: pixels with a 1 below them."""
    turn = torch.eye(3, dtype=torch.float64).repeat(len(maps), 1, 1)
    turn[:, :2, :2] = maps[:, :2, :2]
    shift = torch.zeros(len(maps), like.shape[-1], dtype=torch.float64)
    shift[:, :2] = maps[:, :2, 2]
    return turn, shift


def picture_maps(request: Request) -> Outcome:
    """The matrices of pictures' changes."""
    case, call = request.case, request.call
    (rows,) = case.take(call)
    _, view = _pictures(_config(case)["data_config"])
    maps = torch.stack([change.map() for change in _changes(rows, view)])
    turn, shift = _apart(maps, case.tensors[call.outputs[1]])
    return {call.outputs[0]: turn, call.outputs[1]: shift}


def _flips(case: Case) -> BevChange:
    note = next(call.note for call in case.calls if call.method.startswith("RandomFlip3D"))
    found = re.search(r"horizontal \(y -> -y\) (True|False), vertical \(x -> -x\) (True|False)", note)
    assert found is not None, note
    return BevChange(flip_y=found[1] == "True", flip_x=found[2] == "True")


def _whole(case: Case) -> BevChange:
    note = next(call.note for call in case.calls if call.method.startswith("GlobalRotScaleTrans"))
    found = re.search(rf"rotation angle {NUMBER}, scale {NUMBER}, translation (\[.*?\])", note)
    assert found is not None, note
    flips = _flips(case)
    x, y, z = ast.literal_eval(found[3])
    return BevChange(flips.flip_y, flips.flip_x, float(found[1]), float(found[2]), (x, y, z))


def scene_change(request: Request) -> Outcome:
    """Boxes and poses of a scene that is mirrored, and turned, scaled and moved."""
    case, call = request.case, request.call
    given = _config(case)
    # the ranges are those of the part that draws; what was drawn stands in the notes
    BevAugment(
        given["rot_range"], given["scale_ratio_range"], given["translation_std"], *map(float, given["flip_ratio"])
    )
    boxes, poses = case.take(call)
    change = _flips(case) if call.method.startswith("RandomFlip3D") else _whole(case)
    return {
        call.outputs[0]: change.boxes(boxes),
        call.outputs[1]: change.poses(_square(poses))[:, :3],
    }


def matrices(request: Request) -> Outcome:
    """From the augmented scene to augmented pixels."""
    case, call = request.case, request.call
    poses, intrinsics, turn, shift = case.take(call)
    maps = torch.eye(3, dtype=torch.float64).repeat(len(turn), 1, 1)
    maps[:, :2, :2], maps[:, :2, 2] = turn[:, :2, :2], shift[:, :2]
    return {call.outputs[0]: lidar_to_image(intrinsics, _whole(case).poses(_square(poses)), maps)}


def test_matrices(request: Request) -> Outcome:
    """Real cameras to pixels of the model's input; resizing and crop stand in the note."""
    case, call = request.case, request.call
    poses, intrinsics = case.take(call)
    config = case.config
    written = ast.literal_eval(re.search(r"(\{.*\})", call.note)[1])  # type: ignore[index]
    written = take_known(written, {"resize", "resize_dims", "crop", "flip", "rotate"}, "augmentation")
    added = round(written["resize"] - config["input_size"][1] / config["src_size"][1], 12)
    view = CameraView(config["input_size"], added, bool(written.get("flip", False)), written.get("rotate", 0.0))
    change = view.change(tuple(config["src_size"]))
    maps = change.map().expand(len(poses), 3, 3)
    turn, shift = _apart(maps, case.tensors[call.outputs[1]])
    return {
        call.outputs[0]: turn,
        call.outputs[1]: shift,
        call.outputs[2]: lidar_to_image(intrinsics, _square(poses), maps),
        "size": Pair(list(change.size), written["resize_dims"]),
        "crop": Pair(list(change.crop), written["crop"]),
    }


def in_range(request: Request) -> Outcome:
    """Objects inside of an area."""
    case, call = request.case, request.call
    area = ast.literal_eval(re.search(r"range (\[.*?\])", call.note)[1])  # type: ignore[index]
    boxes = case.tensors["boxes_augmented"] if "boxes_augmented" in call.note else case.take(call)[0]
    mask = inside(boxes, area)
    return {"boxes_in_range": turned_home(boxes[mask]), "kept": mask.nonzero()[:, 0]}


def pixels(request: Request) -> Outcome:
    """Pictures as pictures: blue, green and red stand in the given order throughout."""
    case, call = request.case, request.call
    config = _config(case)
    image, units = case.take(call)
    size = tuple(config["pixel_input_size"])
    picture = Image.fromarray(image.numpy())
    source = picture.height, picture.width
    augment, view = _pictures(config["data_config"], size)
    data = config["data_config"]
    found = {
        "image_train": augment.made(source, view, units.tolist()),
        "image_test": _test_view(data, size).change(source),
        "image_test_flipped": _test_view(data, size, flip=True).change(source),
    }
    return {name: planes(found[name].apply(picture)).permute(1, 2, 0) for name in call.outputs}


def normalised(request: Request) -> Outcome:
    """Red, green and blue around zero."""
    case, call = request.case, request.call
    config = _config(case)
    (image,) = case.take(call)
    order = [2, 1, 0] if config["to_rgb"] else [0, 1, 2]
    processor = CameraProcessor(
        CAMERA_NAMES,
        ["car"],
        CameraView(config["pixel_input_size"]),
        CameraHistory(1, ()),
        config["mean"],
        config["std"],
    )
    made = processor.normalise(image.permute(2, 0, 1)[order])
    step = max(1, round(image.shape[0] / case.tensors[call.outputs[0]].shape[1]))  # the case keeps every step-th
    return {call.outputs[0]: made[:, ::step, ::step]}


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {}


def register(system: System) -> None:
    """The methods of these cases."""
    system.call(r"NuScenesDataset\.get_data_info \(test mode\)")(history)
    system.call(r"NuScenesDataset\.get_data_info -> ann_info")(truth)
    system.call(r"NuScenesMultiViewDataset\.get_data_info \(drops label -1\)")(truth)
    system.call(r"the same with use_valid_flag=(True|False)")(truth)
    system.call(r"RandomAugImageMultiViewImage\.sample_augmentation \(train\)")(parameters)
    system.call(r"RandomAugImageMultiViewImage\.img_transform \(matrices\)")(picture_maps)
    system.call(r"RandomFlip3D.*")(scene_change)
    system.call(r"GlobalRotScaleTrans.*")(scene_change)
    system.call(r"RandomAugImageMultiViewImage\.rts2proj after both augmentations")(matrices)
    system.call(r"RandomAugImageMultiViewImage\.rts2proj \(test-time augmentation\)")(test_matrices)
    system.call(r"ObjectRangeFilter")(in_range)
    system.call(r"RandomAugImageMultiViewImage\.img_transform_core")(pixels)
    system.call(r"NormalizeMultiviewImage")(normalised)
