"""A detector in bird's-eye view as one graph: pictures, maps of earlier frames and calibration in, boxes out.

Two ways to tell the graph where the cameras are:

* `tables`: rows of feature maps for all voxels, made outside (`bev.voxel_table`); one graph serves every rig;
* `motion`: the rig is part of the graph, and what comes in is the car's motion since each earlier frame; the tables of
  earlier frames are computed inside, in float64.

Boxes come out of all anchors, decoded and with their directions, before any suppression. So do the maps of the current
frame, which the next calls take as those of an earlier one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.fast_bev import FastBEV
from multimodal_zoo.bev.voxel_table import VoxelTable, voxel_table

#: How a graph learns where the cameras are.
CALIBRATIONS = ("tables", "motion")


class DetectorSizes(NamedTuple):
    """What a graph is made for.

    Attributes:
        cameras: number of cameras.
        height: pixels.
        width: pixels.
    """

    cameras: int
    height: int
    width: int


class DetectorGraph(nn.Module):
    """One sample through a detector, with named tensors in and out.

    In: `images` (cameras, 3, height, width); for each level `history_<level>` (frames - 1, cameras, channels, h, w), if
    the model reads several frames; `rows_<pair>` int32 (frames, voxels), with the cameras as a last axis where the mean
    of overlapping ones counts, or `motion` float64 (frames - 1, 4, 4), from the current LiDAR frame to that of each
    earlier frame.

    Out: `boxes` (anchors, 9), `scores` (anchors, classes), and for each level `maps_<level>` (cameras, channels, h, w).

    Args:
        model: in evaluation mode.
        sizes: of the rig.
        calibration: a name of `CALIBRATIONS`.
        lidar_to_image: float64 (cameras, 4, 4), the rig; for `motion` only.

    Raises:
        ValueError: an unknown calibration, a rig where none is wanted or none where one is, or one of other cameras.
    """

    lidar_to_image: Tensor | None

    def __init__(
        self, model: FastBEV, sizes: DetectorSizes, calibration: str, lidar_to_image: Tensor | None = None
    ) -> None:
        super().__init__()
        if calibration not in CALIBRATIONS:
            raise ValueError(f"calibration is {calibration!r}; it takes {', '.join(CALIBRATIONS)}")
        if (calibration == "motion") != (lidar_to_image is not None):
            raise ValueError("calibration=motion needs a rig, and calibration=tables none")
        if lidar_to_image is not None and lidar_to_image.shape != (sizes.cameras, 4, 4):
            raise ValueError(f"the rig has shape {tuple(lidar_to_image.shape)}; expected ({sizes.cameras}, 4, 4)")
        self.model, self.sizes, self.calibration = model, sizes, calibration
        self.register_buffer("lidar_to_image", None if lidar_to_image is None else lidar_to_image.double())

    def map_shapes(self) -> list[tuple[int, ...]]:
        """`(cameras, channels, h, w)` of each level, found on the meta device."""
        shadow = torch.empty(1, 1, *self.sizes[:1], 3, *self.sizes[1:], device="meta")
        maps = copy.deepcopy(self.model).to("meta").encode(shadow)
        return [tuple(one.shape[2:]) for one in maps]

    def inputs(self) -> dict[str, Tensor]:
        """Zeros of the shapes and types that `forward` takes, in its order."""
        found = {"images": torch.zeros(self.sizes.cameras, 3, self.sizes.height, self.sizes.width)}
        earlier = self.model.frames - 1
        if earlier:
            found |= {f"history_{k}": torch.zeros(earlier, *shape) for k, shape in enumerate(self.map_shapes())}
        if self.calibration == "motion":
            return {**found, **({"motion": torch.eye(4).double().repeat(earlier, 1, 1)} if earlier else {})}
        several = (self.sizes.cameras,) if self.model.lift.overlap == "mean" else ()
        for number, (_, grid) in enumerate(self.model.lift.pairs):
            voxels = math.prod(self.model.lift.grids[grid].counts)
            found[f"rows_{number}"] = torch.zeros(self.model.frames, voxels, *several, dtype=torch.int32)
        return found

    def outputs(self) -> list[str]:
        """Names of what comes out."""
        return ["boxes", "scores", *(f"maps_{level}" for level in range(len(self.model.fusions)))]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """See the class; tensors in the order of `inputs`, results in that of `outputs`."""
        named = dict(zip(self._names(), given, strict=True))
        new = self.model.encode(named["images"][None, None])
        maps = new
        if self.model.frames > 1:
            maps = [torch.cat((one, named[f"history_{level}"][None]), dim=1) for level, one in enumerate(new)]
        tables = self._computed(named, maps) if self.calibration == "motion" else self._given(named, maps)
        head = self.model.head(self.model.bev_encoder(self.model.lift.gathered(maps, tables)))
        decoded = self.model.head.decoded(head)
        return decoded.boxes[0], decoded.scores[0], *(one[0, 0] for one in new)

    def _names(self) -> list[str]:
        levels, earlier = range(len(self.model.fusions)), self.model.frames > 1
        history = [f"history_{level}" for level in levels] if earlier else []
        if self.calibration == "motion":
            return ["images", *history, *(["motion"] if earlier else [])]
        return ["images", *history, *(f"rows_{number}" for number in range(len(self.model.lift.pairs)))]

    def _given(self, named: Mapping[str, Tensor], maps: Sequence[Tensor]) -> list[VoxelTable]:
        tables = []
        for number, (level, _) in enumerate(self.model.lift.pairs):
            cells = maps[level].shape[-1] * maps[level].shape[-2]
            rows = named[f"rows_{number}"].long()[None]
            tables.append(VoxelTable(rows, self.sizes.cameras * cells, self.model.lift.overlap))
        return tables

    def _computed(self, named: Mapping[str, Tensor], maps: Sequence[Tensor]) -> list[VoxelTable]:
        assert self.lidar_to_image is not None
        matrices = self.lidar_to_image[None]
        if "motion" in named:
            matrices = torch.cat((matrices, self.lidar_to_image @ named["motion"][:, None]))
        cameras = Cameras(matrices[None], self.sizes[1:])
        return [
            voxel_table(cameras, maps[level].shape[-2:], self.model.lift.grids[grid], self.model.lift.overlap)
            for level, grid in self.model.lift.pairs
        ]
