"""Fast-BEV's cases of the view transform: tables, coverage, several scales and times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from harness.cases import Case
from harness.run import Outcome, Pair, Request, System
from harness.words import take_known
from systems.fast_bev_parts.shared import cameras, filled, fusions, grids, lift

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.fast_ray import FastRay, gather_voxels
from multimodal_zoo.bev.voxel_table import VoxelGrid, map_stride, projected, voxel_table
from multimodal_zoo.registry import build

REAL = {"calibration", "camera_order", "input_size", "src_size", "point_cloud_range", "full_grids"}


def _centre(config: Mapping[str, Any]) -> tuple[float, float, float]:
    low, high = config["point_cloud_range"][:3], config["point_cloud_range"][3:]
    x, y, z = ((a + b) / 2 for a, b in zip(low, high, strict=True))
    return x, y, z


def _described(request: Request) -> tuple[VoxelGrid, int, tuple[int, int]]:
    """Grid, stride and map of a call, from its note and the grid that it names."""
    note, config = request.call.note, take_known(request.case.config, REAL, "config")
    stride = int(re.search(r"stride (\d+)", note)[1])  # type: ignore[index]
    whole = _note_with_grid(request.case, note, stride)
    size = _map_size(config, stride)
    given = re.search(r"feature map (\d+)x(\d+)", whole)
    assert given is None or (int(given[1]), int(given[2])) == size
    found = re.search(r"n_voxels (\[.*?\]), voxel_size (\[.*?\])", whole)
    assert found is not None
    counts, sizes = json.loads(found[1]), json.loads(found[2])
    return VoxelGrid(tuple(counts), tuple(sizes), _centre(config)), stride, size


def _map_size(config: Mapping[str, Any], stride: int) -> tuple[int, int]:
    """Height and width of the maps at a stride: convolutions round up."""
    height, width = config["input_size"]
    return -(-height // stride), -(-width // stride)


def _note_with_grid(case: Case, note: str, stride: int) -> str:
    """The note that describes a call's grid: its own, or that of another call at its stride."""
    if "n_voxels" in note:
        return note
    notes = [call.note for call in case.calls if f"stride {stride}," in call.note and "n_voxels" in call.note]
    assert len(set(notes)) == 1
    return notes[0]


def _cameras(request: Request) -> Cameras:
    (matrices,) = request.case.take(request.call)
    return cameras(matrices, request.case.config["input_size"], 1)


def filling(request: Request) -> Outcome:
    """Which pixel of which camera fills each voxel, and who sees it."""
    grid, stride, size = _described(request)
    seen = _cameras(request)
    assert len(request.case.config["camera_order"]) == seen.lidar_to_image.shape[2]
    assert map_stride(seen, size[1]) == stride
    names = {name.rpartition("_")[0]: name for name in request.call.outputs}
    matrix = seen.lidar_to_image[0, 0, :, :3].clone()
    matrix[:, :2] /= stride
    table = voxel_table(seen, size, grid, "last")
    index = torch.where(table.rows == table.empty, 0, table.rows + 1)[0, 0].view(grid.counts)
    cells = projected(seen, size, grid)[0, 0]
    bits = ((cells >= 0).long() * 2 ** torch.arange(len(cells))[:, None]).sum(0).view(grid.counts)
    # the same by features that hold their own place, and by the rule "first" on the cameras in reverse
    places = torch.arange(1, table.empty + 1, dtype=torch.float64).view(1, 1, len(cells), 1, *size)
    lifted = gather_voxels(places, table, grid)[0, ..., 0, 0]
    reverse = Cameras(seen.lidar_to_image.flip(2), seen.size)
    backward = gather_voxels(places.flip(2), voxel_table(reverse, size, grid, "first"), grid)[0, ..., 0, 0]
    return {
        names["projection"]: matrix,
        names["volume_index"]: (index, lifted, backward),
        names["coverage_bits"]: bits,
    }


def averaged(request: Request) -> Outcome:
    """The mean over the cameras that see a voxel."""
    grid, _, size = _described(request)
    seen = _cameras(request)
    table = voxel_table(seen, size, grid, "mean")
    waves = torch.sin(0.37 * torch.arange(table.empty, dtype=torch.float64)).float()
    maps = waves.view(1, 1, -1, 1, *size)
    return {request.call.outputs[0]: gather_voxels(maps, table, grid)[0, ..., 0, :].permute(3, 0, 1, 2)}


def full_grids(case: Case) -> Outcome:
    """Counts of the grids of full size, which the case gives as numbers."""
    if "full_grids" not in case.config:
        return {}
    config, found = case.config, {}
    for name, given in config["full_grids"].items():
        grid = VoxelGrid(tuple(given["n_voxels"]), tuple(given["voxel_size"]), _centre(config))
        seen = cameras(case.tensors["lidar2img"], config["input_size"], 1)
        size = _map_size(config, given["stride"])
        table = voxel_table(seen, size, grid, "last")
        rows = table.rows[0, 0]
        winners = torch.where(rows == table.empty, -1, rows // (size[0] * size[1]))
        off = sum(abs(int((winners == int(k)).sum()) - n) for k, n in given["winner_counts"].items())
        cells = projected(seen, size, grid)[0, 0] >= 0
        seers = cells.sum(0)
        off += sum(abs(int((seers == int(k)).sum()) - n) for k, n in given["seen_by_n_cameras"].items())
        found[name] = Pair(off <= 2 * given["borderline"], True)
        shares = cells.float().mean(1) - torch.tensor(given["per_camera_fraction"])
        found[f"{name} cameras"] = Pair(bool(shares.abs().max() <= given["borderline"] / cells.shape[1] + 1e-6), True)
        # a voxel on a border falls into the next cell of its row or column
        total = int(torch.where(rows == table.empty, 0, rows + 1).sum())
        found[f"{name} rows"] = Pair(abs(total - given["index_sum"]) <= given["borderline"] * size[0] * size[1], True)
        found[f"{name} share"] = Pair(round(float(table.coverage), 3), round(given["filled_fraction"], 3))
    return found


def several_scales(request: Request) -> Outcome:
    """From the pyramid's maps to the map that the encoder in bird's-eye view reads."""
    keys = {
        "style", "multi_scale_id", "multi_scale_3d_scaler", "n_voxels", "voxel_size", "neck_fuse", "fpn_channels",
        "n_times", "input_size",
    }  # fmt: skip
    case = request.case
    config = take_known(case.config, keys, "config")
    *levels, matrices = case.take(request.call)
    assert {level.shape[1] for level in levels} == {config["fpn_channels"]}
    model: Any = filled(case, {"fusions": fusions(config["neck_fuse"], config["multi_scale_id"])})
    volumes = grids(config)
    node = lift(config["style"], volumes, len(model.fusions), config.get("multi_scale_3d_scaler"))
    part: FastRay = build(node)
    seen = cameras(matrices, config["input_size"], config["n_times"])
    with torch.no_grad():
        maps = [one(levels).unflatten(0, seen.lidar_to_image.shape[:3]) for one in model.fusions.values()]
        found = {"bev_channels": part(maps, seen)}
        tables = part.tables(seen, [(one.shape[-2], one.shape[-1]) for one in maps])
        for number, (level, grid) in enumerate(part.pairs):
            volume = gather_voxels(maps[level], tables[number], part.grids[grid])[0]
            for frame in range(config["n_times"]):
                found[f"volume_level{number}_frame{frame}"] = volume[..., frame, :].permute(3, 0, 1, 2)
    return {name: found[name] for name in request.call.outputs}


FIELDS: dict[str, Callable[[Case], Outcome] | None] = {"config": full_grids}


def register(system: System) -> None:
    """The methods of these cases."""
    system.call(r"FastBEV\._compute_projection \+ get_points \+ backproject_inplace")(filling)
    system.call(r"backproject_vanilla.*")(averaged)
    system.call(r"FastBEV\.extract_feat from the FPN outputs.*")(several_scales)
