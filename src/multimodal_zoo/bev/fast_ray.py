"""The view transform of Fast-BEV: feature maps of cameras copied into voxels by a table (arXiv 2301.12511).

Volumes leave it flat, as maps in bird's-eye view whose channels run over height, frames and features: rows are gathered
straight into that order, so that concatenating frames and folding the height into channels cost nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.voxel_table import OVERLAPS, VoxelGrid, VoxelTable, voxel_table
from multimodal_zoo.nn.accumulate import plain_autograd
from multimodal_zoo.registry import BEV

#: How maps of several grids come to one size: bilinear to that of the first, or averaged to that of the last.
RESIZES = ("upsample", "pool")


@BEV.register_module(name="voxel_grid")
def make_voxel_grid(counts: Sequence[int], size: Sequence[float], centre: Sequence[float]) -> VoxelGrid:
    """A `VoxelGrid` from YAML lists."""
    (nx, ny, nz), (sx, sy, sz), (cx, cy, cz) = counts, size, centre
    return VoxelGrid((int(nx), int(ny), int(nz)), (float(sx), float(sy), float(sz)), (float(cx), float(cy), float(cz)))


@BEV.register_module(name="fast_ray")
class FastRay(nn.Module):
    """Feature maps to one map in bird's-eye view.

    Each pair fills a grid from a map: one pair is the single-scale model (style v1 of the published code), several maps
    in one grid v2, one map in several grids v3, each map in its own grid v4.

    Args:
        grids: the volumes (`voxel_grid`).
        pairs: (map, grid) numbers, in the order of their channels.
        overlap: a name of `OVERLAPS`.
        resize: a name of `RESIZES`, where there are several grids.
        kept_tables: how many tables are kept for camera sets that come again, in evaluation mode: training augments
            them, so that none does.

    Raises:
        ValueError: an unknown rule, or pairs that name no grid.
    """

    def __init__(
        self,
        grids: Sequence[VoxelGrid],
        pairs: Sequence[Sequence[int]] = ((0, 0),),
        overlap: str = "last",
        resize: str = "upsample",
        kept_tables: int = 8,
    ) -> None:
        super().__init__()
        for name, value, known in (("overlap", overlap, OVERLAPS), ("resize", resize, RESIZES)):
            if value not in known:
                raise ValueError(f"lift.{name} is {value!r}; it takes {', '.join(known)}")
        self.grids, self.pairs = list(grids), [(int(level), int(grid)) for level, grid in pairs]
        if not self.pairs or {grid for _, grid in self.pairs} != set(range(len(self.grids))):
            raise ValueError(f"lift.pairs is {self.pairs}; every one of {len(self.grids)} grids needs a map")
        self.overlap, self.resize, self.kept_tables = overlap, resize, kept_tables
        self._tables: OrderedDict[tuple[str, int, int, int], VoxelTable] = OrderedDict()
        self._memories = [Memory() for _ in self.pairs]

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: without tables and volumes."""
        return self.__dict__ | {"_tables": OrderedDict(), "_memories": [Memory() for _ in self.pairs]}

    def train(self, mode: bool = True) -> FastRay:
        """Training mode, which gives back what evaluation keeps."""
        super().train(mode)
        if mode:
            self._tables.clear()
            self._memories = [Memory() for _ in self.pairs]
        return self

    @torch.compiler.disable  # every new table would be compiled again
    def tables(self, cameras: Cameras, sizes: Sequence[tuple[int, int]]) -> list[VoxelTable]:
        """The table of each pair, from those that are kept or made anew.

        Args:
            cameras: of a batch.
            sizes: height and width of each map.
        """
        keeping = self.kept_tables > 0 and not self.training
        name = cameras.fingerprint() if keeping else ""
        found = []
        for level, grid in self.pairs:
            key = (name, *sizes[level], grid)
            table = self._tables.get(key)
            if table is None or table.rows.device != cameras.lidar_to_image.device:
                table = self._built(cameras, sizes[level], self.grids[grid])
            if keeping:
                self._tables[key] = table
                self._tables.move_to_end(key)
            found.append(table)
        while len(self._tables) > self.kept_tables * len(self.pairs):
            self._tables.popitem(last=False)
        return found

    def _built(self, cameras: Cameras, size: Sequence[int], grid: VoxelGrid) -> VoxelTable:
        with torch.inference_mode(False):  # what is kept may serve gradients later
            table = voxel_table(cameras, size, grid, self.overlap)
            if self.overlap == "mean":
                table.index  # noqa: B018 (computed when first asked for)
            else:
                table.seen_index  # noqa: B018
        return table

    def channels(self, maps: Mapping[int, int] | Sequence[int], frames: int) -> int:
        """Channels of the result.

        Args:
            maps: channels of each map.
            frames: number of frames.
        """
        return sum(self.grids[grid].counts[2] * frames * maps[level] for level, grid in self.pairs)

    def forward(self, maps: Sequence[Tensor], cameras: Cameras, *, lent: bool = False) -> Tensor:
        """A map in bird's-eye view, `(batch, channels, x, y)`, channels-last in memory.

        Channel `z * (L * T * C) + l * (T * C) + t * C + c` for each grid: height, map of this grid, frame, feature.

        Args:
            maps: for each level `(batch, frames, cameras, channels, height, width)`.
            cameras: of the same batch.
            lent: whether the result may lie in memory that the next call writes again; without gradients only.

        Raises:
            ValueError: maps of another batch, number of frames or of cameras than the cameras are of.
        """
        expected = tuple(cameras.lidar_to_image.shape[:3])
        for one in maps:
            if tuple(one.shape[:3]) != expected:
                raise ValueError(
                    f"maps of {tuple(one.shape[:3])} samples, frames and cameras with calibrations of {expected}"
                )
        return self.gathered(maps, self.tables(cameras, [(m.shape[-2], m.shape[-1]) for m in maps]), lent=lent)

    def gathered(self, maps: Sequence[Tensor], tables: Sequence[VoxelTable], *, lent: bool = False) -> Tensor:
        """The same by tables that are there already, one for each pair."""
        lent = lent and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        flat: list[list[Tensor]] = [[] for _ in self.grids]
        for number, ((level, grid), table) in enumerate(zip(self.pairs, tables, strict=True)):
            memory = self._memories[number] if lent else None
            flat[grid].append(gather_voxels(maps[level], table, self.grids[grid], memory))
        return self._one_size([folded(parts) for parts in flat])

    def _one_size(self, maps: list[Tensor]) -> Tensor:
        if len(maps) == 1:
            return maps[0]
        if self.resize == "pool":
            size = maps[-1].shape[-2:]
            return torch.cat([F.adaptive_avg_pool2d(one, size) for one in maps], dim=1)
        size = maps[0].shape[-2:]
        resized = [F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in maps[1:]]
        return torch.cat([maps[0], *resized], dim=1)


def gather_voxels(maps: Tensor, table: VoxelTable, grid: VoxelGrid, memory: Memory | None = None) -> Tensor:
    """The volume of a grid, `(batch, x, y, z, frames, channels)`; voxels that no camera sees are 0.

    Args:
        maps: `(batch, frames, cameras, channels, height, width)`.
        table: of these maps.
        grid: of the table.
        memory: what the result is written to; None for fresh memory.
    """
    batch, frames, _, channels, _, _ = maps.shape
    rows = maps.permute(0, 1, 2, 4, 5, 3).flatten(0, 4)  # no copy of channels-last maps
    shape = (batch, *grid.counts, frames, channels)
    if table.overlap == "mean":
        return _mean(rows, table).view(shape)
    if memory is not None:
        volume = memory.take((len(table.index), channels), maps)
        torch.index_select(rows, 0, table.seen_index, out=volume)
        return volume.index_fill_(0, table.blank, 0).view(shape)
    if rows.requires_grad and torch.is_grad_enabled() and plain_autograd():
        return _Gathered.apply(rows, table).view(shape)
    return F.pad(rows, (0, 0, 0, 1)).index_select(0, table.index).view(shape)


class _Gathered(torch.autograd.Function):
    """Rows at an index; those of nothing are neither copied in nor out."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: VoxelTable) -> Tensor:
        ctx.table, ctx.count = table, len(rows)
        return rows.index_select(0, table.seen_index).index_fill_(0, table.blank, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """The sum over the voxels that a row fills."""
        total = upstream.new_zeros(ctx.count + 1, upstream.shape[1])
        return total.index_add_(0, ctx.table.index, upstream)[:-1], None


def _mean(rows: Tensor, table: VoxelTable) -> Tensor:
    rows = F.pad(rows, (0, 0, 0, 1))
    total = torch.stack([rows.index_select(0, places) for places in table.index.unbind(-1)]).sum(0)
    seen = (table.rows != table.empty).sum(-1).clamp(min=1)  # (batch, frames, voxels)
    return total / seen.transpose(1, 2).flatten()[:, None]


class Memory:
    """A tensor that is written again and again: fresh memory of that size costs more than filling it."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The tensor, of a shape and of another one's kind, with whatever it holds."""
        kept = self._kept
        if kept is None or kept.shape != torch.Size(shape) or kept.dtype != like.dtype or kept.device != like.device:
            with torch.inference_mode(False):  # to be written outside of it too
                kept = self._kept = like.new_empty(shape)
        return kept


def folded(volumes: list[Tensor]) -> Tensor:
    """Volumes `(batch, x, y, z, frames, channels)` of one grid as one map, channels in the order z, volume, frame."""
    one = volumes[0] if len(volumes) == 1 else torch.cat([v.flatten(4) for v in volumes], dim=4)
    return one.flatten(3).permute(0, 3, 1, 2)
