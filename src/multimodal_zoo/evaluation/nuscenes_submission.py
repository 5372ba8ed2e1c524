"""Detections in the form in which nuScenes' server takes them: from the LiDAR frame to the map, with attributes.

A file holds `meta`, which sensors were used, and `results`: for each sample a list of boxes in the frame of the map.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multimodal_zoo.bev.boxes import HEIGHT, VX, YAW
from multimodal_zoo.bev.geometry import quaternion_of
from multimodal_zoo.bev.post_processing import Detections
from multimodal_zoo.data.camera_infos import SceneInfo
from multimodal_zoo.evaluation.nuscenes_boxes import GlobalBoxes, NuScenesProtocol
from multimodal_zoo.files import atomic_file

#: What a file says of its origin: sensors, a map, other data than nuScenes' own.
META = {"use_camera": True, "use_lidar": False, "use_radar": False, "use_map": False, "use_external": False}
#: Attribute of a fast and of a slow object; classes that are not here have none.
MOTION = {
    "car": ("vehicle.moving", "vehicle.parked"),
    "truck": ("vehicle.moving", "vehicle.parked"),
    "trailer": ("vehicle.moving", "vehicle.parked"),
    "bus": ("vehicle.moving", "vehicle.stopped"),
    "construction_vehicle": ("vehicle.moving", "vehicle.parked"),
    "bicycle": ("cycle.with_rider", "cycle.without_rider"),
    "motorcycle": ("cycle.with_rider", "cycle.without_rider"),
    "pedestrian": ("pedestrian.moving", "pedestrian.standing"),
}
#: Speed above which an object moves, metres per second, as Fast-BEV's published figures have it.
MOVING = 0.2


def meta_of(given: Mapping[str, bool] | None) -> dict[str, bool]:
    """All flags: those given, and false elsewhere but for the cameras.

    Raises:
        ValueError: an unknown flag, or one that is neither true nor false.
    """
    meta = {**META, **(given or {})}
    if set(meta) != set(META) or not all(isinstance(value, bool) for value in meta.values()):
        raise ValueError(f"meta is {dict(given or {})}; expected true or false for some of {list(META)}")
    return meta


def global_boxes(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    lidar2ego: Tensor,
    ego2global: Tensor,
    protocol: NuScenesProtocol,
    sample: int = 0,
    moving: float = MOVING,
) -> GlobalBoxes:
    """Detections of one sample in the frame of the map, without those farther from the car than their class counts.

    Args:
        boxes: (n, 7 or 9), rows of `bev.boxes`; without velocities they have none (NaN).
        scores: (n,).
        labels: long (n,), through the protocol's classes.
        lidar2ego: (4, 4), pose of the LiDAR.
        ego2global: (4, 4), pose of the car.
        protocol: says how far each class counts.
        sample: number of the sample.
        moving: metres per second, above which an object moves.

    Raises:
        ValueError: numbers that are not finite, or a label that is none.
    """
    boxes, scores, labels = (one.detach().cpu() for one in (boxes.double(), scores.double(), labels))
    if not bool(boxes.isfinite().all()) or not bool(scores.isfinite().all()):
        row = int((~(boxes.isfinite().all(1) & scores.isfinite())).nonzero()[0])
        raise ValueError(f"detection {row} is not finite: box {boxes[row].tolist()}, score {float(scores[row])}")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(protocol.classes)):
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}; protocol.classes are {protocol.classes}")
    to_ego, to_map = lidar2ego.double().cpu(), ego2global.double().cpu()
    turn = to_map[:3, :3] @ to_ego[:3, :3]
    centres = boxes[:, :3] + torch.tensor([0.0, 0.0, 0.5], dtype=torch.float64) * boxes[:, HEIGHT, None]
    ego = centres @ to_ego[:3, :3].T + to_ego[:3, 3]
    known = boxes[:, VX:] if boxes.shape[1] > VX else boxes.new_full((len(boxes), 2), torch.nan)
    flat = torch.nn.functional.pad(known, (0, 1))
    velocity = (flat @ turn.T)[:, :2].numpy()
    found = GlobalBoxes(
        sample=np.full(len(boxes), sample),
        translation=(ego @ to_map[:3, :3].T + to_map[:3, 3]).numpy(),
        size=boxes[:, 3:6].numpy(),
        rotation=quaternion_of(turn @ _upright(-boxes[:, YAW] - math.pi / 2)).numpy(),
        velocity=velocity,
        label=labels.numpy(),
        attribute=attributes_of(velocity, labels.numpy(), protocol, moving),
        score=scores.numpy(),
        points=np.full(len(boxes), -1),
    )
    return found.take(ego[:, :2].norm(dim=1).numpy() <= protocol.ranges[found.label])


def scene_boxes(
    info: SceneInfo, found: Detections, classes: Sequence[str], protocol: NuScenesProtocol, sample: int = 0
) -> GlobalBoxes:
    """What a detector found in a key frame, in the frame of the map; classes that are not compared are left out.

    Args:
        info: tells where the car and its LiDAR are.
        found: in the LiDAR frame.
        classes: the detector's names of its labels.
        protocol: the rules.
        sample: number of the key frame.

    Raises:
        ValueError: numbers that are not finite, with the key frame's token.
    """
    numbers = torch.tensor([protocol.classes.index(one) if one in protocol.classes else -1 for one in classes])
    labels = numbers[found.labels.cpu()]
    kept = labels >= 0
    lidar2ego, ego2global = (
        torch.from_numpy(np.asarray(one, dtype=np.float64)) for one in (info.lidar2ego, info.ego2global)
    )
    boxes, scores = found.boxes.cpu()[kept], found.scores.cpu()[kept]
    try:
        return global_boxes(boxes, scores, labels[kept], lidar2ego, ego2global, protocol, sample)
    except ValueError as error:
        raise ValueError(f"sample {info.token}: {error}") from None


def submission_of(
    scenes: Sequence[tuple[SceneInfo, Detections]], classes: Sequence[str], meta: Mapping[str, bool] | None = None
) -> dict[str, object]:
    """The content of a submission as an object of JSON, for a few key frames; `write_submission` takes thousands.

    Args:
        scenes: each key frame with what was found in it, in the LiDAR frame.
        classes: the detector's names of its labels.
        meta: flags that differ from `META`.

    Raises:
        ValueError: numbers that are not finite, too many boxes in a key frame, or an unknown flag.
    """
    protocol = NuScenesProtocol()
    boxes = [scene_boxes(info, found, classes, protocol, place) for place, (info, found) in enumerate(scenes)]
    check_counts(GlobalBoxes.joined(boxes), [info.token for info, _ in scenes], protocol)
    results = {info.token: _records(own, info.token, protocol) for (info, _), own in zip(scenes, boxes, strict=True)}
    return {"meta": meta_of(meta), "results": results}


def _upright(angle: Tensor) -> Tensor:
    """Rotations (n, 3, 3) about the upright axis by angles (n,), counter-clockwise from above."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = ((cosine, -sine, zero), (sine, cosine, zero), (zero, zero, zero + 1))
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def attributes_of(velocity: np.ndarray, label: np.ndarray, protocol: NuScenesProtocol, moving: float) -> np.ndarray:
    """Numbers of attributes (n,) by class and speed, -1 for none; an unknown velocity (NaN) counts as slow.

    Args:
        velocity: (n, 2), metres per second.
        label: (n,).
        protocol: names classes and attributes.
        moving: metres per second, above which an object moves.

    Raises:
        ValueError: an attribute of a class that the protocol does not know.
    """
    numbers = {"": -1, **{name: number for number, name in enumerate(protocol.attributes)}}
    pairs = [MOTION.get(name, ("", "")) for name in protocol.classes]
    if missing := sorted({name for pair in pairs for name in pair} - numbers.keys()):
        raise ValueError(f"protocol.attributes lacks {missing}")
    fast = np.sqrt((velocity**2).sum(1)) > moving
    table = np.array([[numbers[slow], numbers[quick]] for quick, slow in pairs])
    return table[label, fast.astype(np.int64)]


def write_submission(
    path: Path,
    boxes: GlobalBoxes,
    tokens: Sequence[str],
    protocol: NuScenesProtocol,
    meta: Mapping[str, bool] | None = None,
) -> Path:
    """Write the file, sample by sample; samples without boxes are in it.

    Args:
        path: of the file; its folder is made.
        boxes: of all samples.
        tokens: name of each sample.
        protocol: names classes and attributes, and bounds the boxes of a sample.
        meta: flags that differ from `META`.

    Raises:
        ValueError: more boxes in a sample than the protocol allows, a sample that stands twice, or an unknown flag.
    """
    flags = meta_of(meta)
    if len(set(tokens)) != len(tokens):
        twice = next(token for place, token in enumerate(tokens) if token in tokens[:place])
        raise ValueError(f"sample {twice} stands twice among {len(tokens)}; a submission holds each once")
    check_counts(boxes, tokens, protocol)
    order = np.argsort(boxes.sample, kind="stable")
    bounds = np.searchsorted(boxes.sample[order], np.arange(len(tokens) + 1))
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(f'{{"meta": {json.dumps(flags)},\n"results": {{')
        for number, token in enumerate(tokens):
            own = boxes.take(order[bounds[number] : bounds[number + 1]])
            file.write(f"{',' if number else ''}\n{json.dumps(token)}: {json.dumps(_records(own, token, protocol))}")
        file.write("}}\n")
    return path


def check_counts(boxes: GlobalBoxes, tokens: Sequence[str], protocol: NuScenesProtocol) -> None:
    """Refuse samples of too many boxes.

    Raises:
        ValueError: with the sample.
    """
    counts = np.bincount(boxes.sample, minlength=len(tokens))
    if len(counts) and counts.max() > protocol.max_boxes:
        most = int(counts.argmax())
        raise ValueError(
            f"sample {tokens[most]} has {counts[most]} boxes; protocol.max_boxes is {protocol.max_boxes}: lower the "
            "limit of the head's selection or raise its score_threshold"
        )


def _records(boxes: GlobalBoxes, token: str, protocol: NuScenesProtocol) -> list[dict[str, object]]:
    names = {-1: "", **dict(enumerate(protocol.attributes))}
    columns = (boxes.translation, boxes.size, boxes.rotation, boxes.velocity, boxes.label, boxes.score, boxes.attribute)
    return [
        {
            "sample_token": token,
            "translation": translation,
            "size": size,
            "rotation": rotation,
            "velocity": velocity,
            "detection_name": protocol.classes[label],
            "detection_score": score,
            "attribute_name": names[attribute],
        }
        for translation, size, rotation, velocity, label, score, attribute in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]
