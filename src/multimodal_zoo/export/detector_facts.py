"""What `export.json` says of a detector's graph: tensors, tables, boxes, and what to do before and after it."""

from __future__ import annotations

from typing import Any

import torch

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.voxel_table import map_stride
from multimodal_zoo.export.detector import DetectorGraph

#: Meaning of the tensors, by the beginning of their names.
MEANINGS = {
    "images": "normalised pictures of the current time, in the order of `cameras`",
    "history": "maps_* of earlier calls, the nearest time first; where a drive is young, those of this call",
    "rows": "which row of the maps (camera, row, column) fills a voxel (x, y, z) for each time; see `tables`",
    "motion": "pose from the current LiDAR frame to that of each earlier time, metres",
    "boxes": "of all anchors, before suppression; see `box`",
    "scores": "of all anchors and classes, 0 to 1",
    "maps": "of the current pictures: `history_*` of later calls",
}
BOX = (
    "x, y, z, w, l, h, yaw, vx, vy in the LiDAR frame, metres, radians, metres per second: z is the bottom's, w lies "
    "along x at yaw 0, yaw grows clockwise seen from above"
)
RULE = (
    "project each voxel's lower corner, index * size + centre - counts / 2 * size, by lidar_to_image in float64; "
    "divide u and v by depth and by stride; round half to even; keep what falls into the map with depth > 0: "
    "the entry is camera * height * width + row * width + column, or `empty` where no camera sees the voxel"
)


def about(graph: DetectorGraph) -> dict[str, Any]:
    """Everything about a graph but its file.

    Args:
        graph: in evaluation mode.
    """
    model, processor = graph.model, graph.model.processor
    config: dict[str, Any] = getattr(model, "config", {})
    head = config.get("head") or {}
    outputs: dict[str, Any] = {
        "boxes": ["anchors", model.head.anchors.code_size],
        "scores": ["anchors", len(model.head.class_names)],
        **{f"maps_{level}": list(shape) for level, shape in enumerate(graph.map_shapes())},
    }
    return {
        "variant": getattr(model, "variant", None),
        "weights": getattr(model, "weights", "unknown"),
        "calibration": graph.calibration,
        "frames": model.frames,
        "cameras": list(processor.cameras) if processor is not None else graph.sizes.cameras,
        "classes": list(model.head.class_names),
        "box": BOX,
        "inputs": {name: _tensor(name, list(t.shape), str(t.dtype)[6:]) for name, t in graph.inputs().items()},
        "outputs": {name: _tensor(name, shape, "float32") for name, shape in outputs.items()},
        "tables": _tables(graph),
        "selection": head.get("selection"),
        "preprocessing": config.get("processor"),
    }


def _tensor(name: str, shape: list[Any], dtype: str) -> dict[str, Any]:
    return {"shape": shape, "dtype": dtype, "meaning": MEANINGS[name.split("_")[0]]}


def _tables(graph: DetectorGraph) -> dict[str, Any] | None:
    """How `rows_*` are made; None where the graph makes them itself."""
    if graph.calibration == "motion":
        return None
    model, shapes = graph.model, graph.map_shapes()
    cameras = Cameras(torch.eye(4, dtype=torch.float64)[None, None, None], graph.sizes[1:])
    pairs = {}
    for number, (level, grid) in enumerate(model.lift.pairs):
        count, _, height, width = shapes[level]
        volume = model.lift.grids[grid]
        pairs[f"rows_{number}"] = {
            "map": [height, width],
            "stride": map_stride(cameras, width),
            "counts": list(volume.counts),
            "size": list(volume.size),
            "centre": list(volume.centre),
            "empty": count * height * width,
        }
    return {"rule": RULE, "overlap": model.lift.overlap, "made_by": "multimodal_zoo.bev.voxel_table", **pairs}
