"""Anchor boxes on a regular grid of cells (as Fast-BEV's heads use them, arXiv 2301.12511)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_zoo.registry import BEV


@BEV.register_module(name="anchor_grid")
class AnchorGrid:
    """Boxes of every size and rotation at the centre of every cell.

    Args:
        ranges: `(x, y, z)` where the cells begin and `(x, y, z)` where they end, metres, six numbers each: one range
            for all sizes or one for each. The height of anchors, of their bottom, is the middle of both z.
        sizes: width (along x), length (along y) and height of each anchor, metres.
        rotations: yaws, clockwise, rad.
        motion: how many numbers follow the yaw, all 0: two for boxes with a velocity, none for boxes without.

    Raises:
        ValueError: numbers of ranges and sizes that do not fit, an empty range, sizes that are not positive.
    """

    def __init__(
        self,
        ranges: Sequence[Sequence[float]],
        sizes: Sequence[Sequence[float]],
        rotations: Sequence[float],
        motion: int = 2,
    ) -> None:
        self.ranges = [tuple(float(one) for one in row) for row in ranges]
        self.sizes = [tuple(float(one) for one in row) for row in sizes]
        self.rotations, self.motion = tuple(float(one) for one in rotations), motion
        self._check()
        if len(self.ranges) == 1:
            self.ranges *= len(self.sizes)

    def _check(self) -> None:
        if not self.sizes or not self.rotations or any(len(row) != 3 or min(row) <= 0 for row in self.sizes):
            raise ValueError(
                f"anchors.sizes is {self.sizes}, anchors.rotations {self.rotations}; expected (width, length, height) "
                "above 0 in metres, and one rotation at least"
            )
        if len(self.ranges) not in (1, len(self.sizes)):
            raise ValueError(f"anchors.ranges has {len(self.ranges)} rows; expected 1, or {len(self.sizes)} as sizes")
        for row in self.ranges:
            if len(row) != 6 or row[3] <= row[0] or row[4] <= row[1]:
                raise ValueError(f"anchors.ranges holds {row}; expected x, y, z where cells begin, and where they end")
        if self.motion < 0:
            raise ValueError(f"anchors.motion is {self.motion}; it must not be negative")

    @property
    def per_cell(self) -> int:
        """Number of anchors of a cell."""
        return len(self.sizes) * len(self.rotations)

    @property
    def code_size(self) -> int:
        """Numbers of a box."""
        return 7 + self.motion

    def boxes(
        self, size: tuple[int, int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The anchors of a map, `(rows * columns * per_cell, code_size)`, in the order y, x, size, rotation.

        Args:
            size: rows (y) and columns (x) of the map.
            device: where they are made.
            dtype: of the result.
        """
        parts = [self._of_size(number, size, device, dtype) for number in range(len(self.sizes))]
        return torch.stack(parts, dim=2).flatten(0, 3)

    def _of_size(self, number: int, size: tuple[int, int], device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """`(rows, columns, rotations, code_size)`."""
        row, box = self.ranges[number], self.sizes[number]
        y = _centres(row[1], row[4], size[0], device, dtype)[:, None, None]
        x = _centres(row[0], row[3], size[1], device, dtype)[None, :, None]
        yaw = torch.tensor(self.rotations, device=device, dtype=dtype)[None, None]
        fixed = [torch.full((), value, device=device, dtype=dtype) for value in ((row[2] + row[5]) / 2, *box)]
        still = [torch.zeros((), device=device, dtype=dtype)] * self.motion
        shape = (size[0], size[1], len(self.rotations))
        return torch.stack([one.expand(shape) for one in (x, y, *fixed, yaw, *still)], dim=-1)


def _centres(start: float, stop: float, cells: int, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Centres of equal cells between two ends."""
    edges = torch.linspace(start, stop, cells + 1, device=device, dtype=dtype)
    return edges[:cells] + (edges[1] - edges[0]) / 2
