"""Which pixel of which camera fills each voxel: a table that depends on calibration alone (arXiv 2301.12511)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras

#: Where two cameras see a voxel: the later in order wins (the published checkpoints), the earlier, or their mean.
OVERLAPS = ("last", "first", "mean")


@dataclass(frozen=True)
class VoxelGrid:
    """A grid of voxels in the LiDAR frame.

    Attributes:
        counts: voxels along x, y, z.
        size: metres of a voxel along x, y, z.
        centre: middle of the grid, metres.

    Raises:
        ValueError: numbers that are not positive.
    """

    counts: tuple[int, int, int]
    size: tuple[float, float, float]
    centre: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.counts) != 3 or len(self.size) != 3 or len(self.centre) != 3:
            raise ValueError(f"lift.grids: counts {self.counts}, size {self.size}, centre {self.centre}; three each")
        if min(self.counts) < 1 or min(self.size) <= 0:
            raise ValueError(f"lift.grids: counts {self.counts} and size {self.size} must be above 0")

    def axes(self, device: torch.device) -> list[Tensor]:
        """The points that are projected, along x, y and z: each voxel's lower corner, float64."""
        return [
            torch.arange(count, dtype=torch.float64, device=device) * size + (middle - count / 2 * size)
            for count, size, middle in zip(self.counts, self.size, self.centre, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class VoxelTable:
    """Rows of feature maps for the voxels of a grid.

    Attributes:
        rows: long (batch, frames, voxels), or (batch, frames, voxels, cameras) for the mean; which row of the maps
            (cameras, height, width) of a frame fills the voxel (x, y, z), or `empty`.
        empty: the number that stands for no pixel: that of the row behind all maps.
        overlap: a name of `OVERLAPS`.
    """

    rows: Tensor
    empty: int
    overlap: str

    @cached_property
    def index(self) -> Tensor:
        """Rows among those of all frames of the batch and a last one, which is empty.

        int32 (batch * voxels * frames,) in the order of a volume; with the cameras as a second axis for the mean.
        """
        batch, frames = self.rows.shape[:2]
        starts = torch.arange(batch * frames, device=self.rows.device).view(batch, 1, frames) * self.empty
        places = self.rows.transpose(1, 2)
        starts = starts[..., None] if self.overlap == "mean" else starts
        found = torch.where(places == self.empty, batch * frames * self.empty, places + starts)
        return found.flatten(0, 2).int()

    @cached_property
    def blank(self) -> Tensor:
        """Where in `index` nothing is seen, long (n,)."""
        return (self.index == self.rows.shape[0] * self.rows.shape[1] * self.empty).flatten().nonzero().flatten()

    @cached_property
    def seen_index(self) -> Tensor:
        """`index` with any row at voxels that nothing fills."""
        return self.index.index_fill(0, self.blank, 0)

    @property
    def coverage(self) -> Tensor:
        """Share of the voxels that some camera sees, float (batch, frames)."""
        seen = self.rows != self.empty
        return (seen.any(-1) if self.overlap == "mean" else seen).float().mean(-1)


def map_stride(cameras: Cameras, width: int) -> int:
    """Pixels of a picture per cell of a map that is `width` cells wide."""
    return math.ceil(cameras.size[1] / width)


@torch.no_grad()
def voxel_table(cameras: Cameras, map_size: Sequence[int], grid: VoxelGrid, overlap: str) -> VoxelTable:
    """The table of a batch of cameras, in float64.

    A point falls on the cell whose centre is nearest, ties to the even one, if that lies in the map and the point in
    front of the camera.

    Args:
        cameras: `(batch, frames, cameras)`.
        map_size: height and width of the feature maps.
        grid: what is filled.
        overlap: a name of `OVERLAPS`.

    Raises:
        ValueError: an unknown rule.
    """
    if overlap not in OVERLAPS:
        raise ValueError(f"lift.overlap is {overlap!r}; it takes {', '.join(OVERLAPS)}")
    pixels = projected(cameras, map_size, grid)  # (batch, frames, cameras, voxels)
    count, cells = pixels.shape[2], map_size[0] * map_size[1]
    starts = torch.arange(count, device=pixels.device)[:, None] * cells
    rows = torch.where(pixels < 0, -1, pixels + starts)
    if overlap == "mean":
        rows = rows.transpose(2, 3).contiguous()
    elif overlap == "last":
        rows = rows.amax(2)  # a later camera has larger numbers
    else:
        rows = torch.where(rows < 0, count * cells, rows).amin(2)
    return VoxelTable(torch.where(rows < 0, count * cells, rows), count * cells, overlap)


def projected(cameras: Cameras, map_size: Sequence[int], grid: VoxelGrid) -> Tensor:
    """The cell of each camera's map that a voxel falls on, -1 for none: long (batch, frames, cameras, voxels)."""
    height, width = map_size
    stride = map_stride(cameras, width)
    used = min(height, math.ceil(cameras.size[0] / stride)), min(width, math.ceil(cameras.size[1] / stride))
    matrix = cameras.lidar_to_image[..., :3, :].clone()
    matrix[..., :2, :] /= stride
    # a matrix times a grid of points is a sum over its axes
    x, y, z = grid.axes(matrix.device)
    along = [matrix[..., axis, None] * points for axis, points in enumerate((x, y, z))]  # (..., 3, points)
    shift = matrix[..., 3, None, None, None]
    scaled = along[0][..., :, None, None] + along[1][..., None, :, None] + along[2][..., None, None, :] + shift
    u, v, depth = scaled.flatten(-3).unbind(-2)
    column, row = (u / depth).round(), (v / depth).round()
    inside = (column >= 0) & (column < used[1]) & (row >= 0) & (row < used[0]) & (depth > 0)
    if cameras.present is not None:
        inside &= cameras.present[..., None]
    cell = torch.where(inside, row * width + column, -1.0)
    return cell.long()
