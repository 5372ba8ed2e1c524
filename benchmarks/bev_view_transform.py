"""Feature maps of six cameras to a volume in bird's-eye view: a table, the published loop, depth bins, attention.

    python benchmarks/bev_view_transform.py            # one thread: about a minute of processor time

Maps of 64 channels and 64 x 176 cells (those of Fast-BEV M0), a volume of 200 x 200 x 4 voxels, made-up cameras that
look outwards all around. All sides get the same maps.

* published: the loop of the published code, which projects all voxels at every call and copies camera by camera;
* table: our `FastRay`; the table of the cameras is there already, as for every call but the first. "channels last" has
  maps that lie as convolutions in that layout leave them. "kept memory" writes where the last call wrote, as the
  detector does without gradients;
* depth bins: lift-splat (arXiv 2008.05711): each cell spreads its features over 59 depths, weighted by a predicted
  distribution, and the points are summed within cells of 200 x 200. Maps of 16 x 44 cells, as its users have them.
  Three ways to sum: adding row by row, sorted running sums, and adding what is in range alone. The distributions are
  given, and the points' cells are computed beforehand;
* attention: every cell of 200 x 200 asks the cameras at 4 heights by 4 bilinear samples each beside its projected
  point, and mixes them by weights that are predicted from its query (as in arXiv 2203.17270, one layer, one head).

"with gradients" adds the backward pass to the maps (and distributions). Where the rounding of float32 moves a pixel,
the published loop reads another one: "other voxels" is the share of those.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from _report import alternate, ratio, record, use_threads
from torch import Tensor

from multimodal_zoo.bev.cameras import Cameras
from multimodal_zoo.bev.fast_ray import FastRay, gather_voxels
from multimodal_zoo.bev.geometry import lidar_to_image, pose
from multimodal_zoo.bev.voxel_table import VoxelGrid, voxel_table

CHANNELS, SIZE, DEPTHS, SAMPLES = 64, (256, 704), 59, 4
FULL = ((64, 176), (200, 200, 4), (16, 44))
QUICK = ((16, 44), (40, 40, 2), (8, 22))


def surround(count: int = 6) -> Cameras:
    """Cameras all around, 1.5 m above the ground."""
    intrinsic = torch.tensor([[560.0, 0, 352], [0, 560, 100], [0, 0, 1]])
    found = []
    for number in range(count):
        angle = 2 * math.pi * number / count
        right, ahead = (
            torch.tensor([math.cos(angle), math.sin(angle), 0]),
            torch.tensor([-math.sin(angle), math.cos(angle), 0]),
        )
        rotation = torch.stack((right, torch.tensor([0, 0, -1.0]), ahead), dim=1)
        found.append(lidar_to_image(intrinsic, pose(rotation, ahead + torch.tensor([0, 0, -0.3]))))
    return Cameras(torch.stack(found)[None, None], SIZE)


class Published:
    """The published loop (Sense-GVT/Fast-BEV, `backproject_inplace` and what averages), written anew.

    Args:
        cameras: one sample, one frame.
        grid: the volume.
        stride: of the maps.
    """

    def __init__(self, cameras: Cameras, grid: VoxelGrid, stride: int) -> None:
        axes = torch.meshgrid(*grid.axes(torch.device("cpu")), indexing="ij")
        self.points = torch.stack([axis.flatten() for axis in (*axes, torch.ones_like(axes[0]))]).float()
        self.matrices = cameras.lidar_to_image[0, 0, :, :3].float()
        self.stride = stride

    def places(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Column, row and validity of every voxel in every camera."""
        matrices = self.matrices.clone()
        matrices[:, :2] /= self.stride
        found = torch.bmm(matrices, self.points.expand(len(matrices), -1, -1))
        x, y = (found[:, 0] / found[:, 2]).round().long(), (found[:, 1] / found[:, 2]).round().long()
        inside = (x >= 0) & (y >= 0) & (x < maps.shape[3]) & (y < maps.shape[2]) & (found[:, 2] > 0)
        return x, y, inside

    def last(self, maps: Tensor) -> Tensor:
        """One volume; later cameras overwrite."""
        x, y, inside = self.places(maps)
        volume = maps.new_zeros(maps.shape[1], self.points.shape[1])
        for number, one in enumerate(maps):
            seen = inside[number]
            volume[:, seen] = one[:, y[number, seen], x[number, seen]]
        return volume

    def mean(self, maps: Tensor) -> Tensor:
        """A volume of each camera, averaged."""
        x, y, inside = self.places(maps)
        volumes = maps.new_zeros(len(maps), maps.shape[1], self.points.shape[1])
        for number, one in enumerate(maps):
            seen = inside[number]
            volumes[number, :, seen] = one[:, y[number, seen], x[number, seen]]
        return volumes.sum(0) / inside.sum(0).clamp(min=1)


class DepthBins:
    """Lift-splat onto the cells of a square of 100 m.

    Args:
        cameras: one sample, one frame.
        size: of the maps.
        cells: of the square, along a side.
    """

    def __init__(self, cameras: Cameras, size: tuple[int, int], cells: int) -> None:
        height, width = size
        depth = torch.linspace(1, 60, DEPTHS, dtype=torch.float64)
        v, u = torch.meshgrid(
            torch.linspace(0, SIZE[0] - 1, height), torch.linspace(0, SIZE[1] - 1, width), indexing="ij"
        )
        rays = torch.stack((u, v, torch.ones_like(u))).double().flatten(1)
        points = (depth[:, None, None] * rays).permute(1, 0, 2).flatten(1)  # (3, depths * cells)
        points = torch.cat((points, torch.ones_like(points[:1])))
        self.cells = cells
        place = torch.linalg.inv(cameras.lidar_to_image[0, 0]) @ points  # (cameras, 4, points)
        index = ((place[:, :2] + 50) / (100 / cells)).floor().long()
        inside = ((index >= 0) & (index < cells)).all(1) & (place[:, 2].abs() < 5)
        self.index = torch.where(inside, index[:, 0] * cells + index[:, 1], cells * cells).flatten()
        self.kept = inside.flatten().nonzero().flatten()
        self.order = self.index.argsort()
        self.source = self.kept  # (camera, depth, row, column) of the points in range
        plane = height * width
        self.feature = self.kept // (DEPTHS * plane) * plane + self.kept % plane

    def _points(self, maps: Tensor, depths: Tensor) -> Tensor:
        """Features of all points, (cameras * depths * cells, channels)."""
        return (depths[..., None] * maps.permute(0, 2, 3, 1)[:, None]).flatten(0, 3)

    def added(self, maps: Tensor, depths: Tensor) -> Tensor:
        """Every point added to its cell."""
        total = maps.new_zeros(self.cells**2 + 1, maps.shape[1])
        return total.index_add(0, self.index, self._points(maps, depths))

    def sorted_sums(self, maps: Tensor, depths: Tensor) -> Tensor:
        """Running sums over the points in the order of their cells, and differences at the borders."""
        rows, cells = self._points(maps, depths)[self.order], self.index[self.order]
        last = torch.cat((cells[1:] != cells[:-1], torch.ones(1, dtype=torch.bool)))
        sums = rows.cumsum(0)[last]
        sums = torch.cat((sums[:1], sums[1:] - sums[:-1]))
        return maps.new_zeros(self.cells**2 + 1, maps.shape[1]).index_copy(0, cells[last], sums)

    def in_range(self, maps: Tensor, depths: Tensor) -> Tensor:
        """Points outside of the square left out before they are made."""
        rows = maps.permute(0, 2, 3, 1).flatten(0, 2)[self.feature] * depths.flatten()[self.source][:, None]
        return maps.new_zeros(self.cells**2 + 1, maps.shape[1]).index_add(0, self.index[self.kept], rows)


class Attention:
    """Deformable attention of cells to the maps around their projected points.

    Args:
        cameras: one sample, one frame.
        grid: cells and heights.
    """

    def __init__(self, cameras: Cameras, grid: VoxelGrid) -> None:
        axes = torch.meshgrid(*grid.axes(torch.device("cpu")), indexing="ij")
        points = torch.stack([axis.flatten() for axis in (*axes, torch.ones_like(axes[0]))])
        found = cameras.lidar_to_image[0, 0, :, :3] @ points
        where = found[:, :2] / found[:, 2:].clamp(min=1e-5) / torch.tensor([[SIZE[1]], [SIZE[0]]]) * 2 - 1
        self.seen = (found[:, 2] > 0) & (where.abs() < 1).all(1)
        self.where = where.mT.float()  # (cameras, voxels, 2)
        self.heights, cells = grid.counts[2], grid.counts[0] * grid.counts[1]
        self.query = torch.randn(cells, CHANNELS)
        self.offset = torch.nn.Linear(CHANNELS, self.heights * SAMPLES * 2)
        self.weight = torch.nn.Linear(CHANNELS, self.heights * SAMPLES)

    def __call__(self, maps: Tensor) -> Tensor:
        """(cells, channels)."""
        offset = self.offset(self.query).view(-1, self.heights, SAMPLES, 2) * 0.02
        weight = self.weight(self.query).softmax(-1).view(-1, self.heights, SAMPLES)
        total = maps.new_zeros(len(self.query), maps.shape[1])
        hits = maps.new_zeros(len(self.query), 1)
        for one, where, seen in zip(maps, self.where, self.seen, strict=True):
            rows = seen.view(-1, self.heights).any(1).nonzero().flatten()  # only the cells that this camera sees
            place = (where.view(-1, self.heights, 1, 2) + offset)[rows]
            sampled = F.grid_sample(one[None], place.flatten(1, 2)[None], align_corners=False)[0]
            mixed = (sampled * weight[rows].flatten(1)).sum(-1)
            total, hits = total.index_add(0, rows, mixed.t()), hits.index_add(0, rows, torch.ones(len(rows), 1))
        return total / hits.clamp(min=1)


def rivals(quick: bool) -> tuple[dict[str, Callable[[], Tensor]], dict[str, Tensor], float]:
    """The ways by name, the maps that they read, and the share of voxels that the published loop fills differently."""
    size, counts, small = QUICK if quick else FULL
    cameras = surround()
    grid = VoxelGrid(counts, tuple(100 / n if i < 2 else 6 / n for i, n in enumerate(counts)), (0, 0, -1))  # type: ignore[arg-type]
    torch.manual_seed(0)
    maps, coarse = torch.randn(6, CHANNELS, *size), torch.randn(6, CHANNELS, *small)
    depths = torch.rand(6, DEPTHS, *small).softmax(1)
    last_layout = maps.to(memory_format=torch.channels_last)
    ours, published = FastRay([grid]).eval(), Published(cameras, grid, SIZE[1] // size[1])
    bins, attention = DepthBins(cameras, small, counts[0]), Attention(cameras, grid)
    found = {
        "published, last camera": lambda: published.last(maps),
        "published, mean": lambda: published.mean(maps),
        "table, channels first": lambda: ours([maps[None, None]], cameras),
        "table, channels last": lambda: ours([last_layout[None, None]], cameras),
        "table, channels last, kept memory": lambda: ours([last_layout[None, None]], cameras, lent=True),
        "depth bins, added": lambda: bins.added(coarse, depths),
        "depth bins, sorted sums": lambda: bins.sorted_sums(coarse, depths),
        "depth bins, in range": lambda: bins.in_range(coarse, depths),
        "attention": lambda: attention(maps),
    }
    table = voxel_table(cameras, size, grid, "last")
    volume = gather_voxels(maps[None, None], table, grid).view(-1, CHANNELS).t()
    other = float((volume != published.last(maps)).any(0).float().mean())
    return found, {"maps": maps, "last": last_layout, "coarse": coarse, "depths": depths}, other


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="small maps, once; records nothing")
    options = parser.parse_args()
    use_threads(options.threads)
    ways, tensors, other = rivals(options.quick)
    repeats = 1 if options.quick else options.repeats
    with torch.no_grad():
        forward = alternate(ways, repeats)
    for tensor in tensors.values():
        tensor.requires_grad_()

    def both(run: Callable[[], Tensor]) -> Callable[[], None]:
        """Forward and backward."""

        def call() -> None:
            """Once."""
            result = run()
            result.backward(torch.ones_like(result))
            for tensor in tensors.values():
                tensor.grad = None

        return call

    learning = {name: both(run) for name, run in ways.items() if "kept memory" not in name}
    backward = alternate(learning, max(1, repeats // 2))
    rows = list[dict[str, Any]]()
    ours, base = "table, channels last, kept memory", "published, last camera"
    for name, taken in forward.items():
        row: dict[str, Any] = {"way": name, "ms": 1000 * min(taken)}
        row |= {"published / way": ratio(forward[base], taken), "way / ours": ratio(taken, forward[ours])}
        if name in backward:
            row |= {"ms, with gradients": 1000 * min(backward[name])}
            row |= {"published / way, with gradients": ratio(backward[base], backward[name])}
        rows.append(row)
    rows[0]["other voxels"] = other
    record("bev_view_transform", rows, "python benchmarks/bev_view_transform.py", options.threads, not options.quick)


if __name__ == "__main__":
    main()
