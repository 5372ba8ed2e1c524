"""Which patches of an image are hidden from a student: a pure function of the random numbers it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from multimodal_zoo.registry import DATASETS

#: Draws of one block before it is given up.
ATTEMPTS = 10


class Masking(Protocol):
    """Chooses the hidden patches of one image."""

    def __call__(self, random: Random) -> Tensor:
        """Bool (patches,), row by row of the grid."""
        ...


@DATASETS.register_module(name="blockwise_masking")
class BlockwiseMasking:
    """Rectangular blocks until enough patches are hidden (BEiT, arXiv 2106.08254, algorithm 1).

    Each block has an area drawn evenly between `smallest` and what is still wanted, and a shape drawn evenly in the
    logarithm of height over width; it lies inside the grid and leaves at least one row and one column free. A block
    that would hide too many new patches, or none, is drawn again.

    Args:
        grid: rows and columns of patches.
        most: patches hidden at most; the last block may leave a few of them visible.
        smallest: patches of the smallest block.
        aspect: least height over width of a block; the greatest is its inverse.

    Raises:
        ValueError: numbers that do not fit each other.
    """

    def __init__(self, grid: Sequence[int], most: int, smallest: int = 16, aspect: float = 0.3) -> None:
        rows, columns = (int(n) for n in grid)
        if min(rows, columns) < 2 or not 0 <= most < rows * columns:
            raise ValueError(
                f"data.masking: most is {most} of a grid of {rows}x{columns}; it must leave a patch to see, and a grid "
                "has at least two rows and two columns"
            )
        if smallest < 1 or not 0 < aspect <= 1:
            raise ValueError(f"data.masking: smallest is {smallest} and aspect {aspect}; expected >= 1 and (0, 1]")
        if most and smallest > most:
            raise ValueError(f"data.masking.smallest is {smallest}, more than data.masking.most, {most}")
        self.grid, self.most, self.smallest, self.aspect = (rows, columns), most, smallest, aspect

    def __call__(self, random: Random) -> Tensor:
        """Bool (rows * columns,), True where a patch is hidden."""
        mask = torch.zeros(self.grid, dtype=torch.bool)
        hidden = 0
        while hidden < self.most:
            added = self._add_block(mask, self.most - hidden, random)
            if not added:
                break
            hidden += added
        return mask.flatten()

    def _add_block(self, mask: Tensor, wanted: int, random: Random) -> int:
        """Hide one more block of at most `wanted` new patches; gives how many it hid."""
        rows, columns = self.grid
        bound = math.log(self.aspect)
        for _ in range(ATTEMPTS):
            area = random.uniform(self.smallest, wanted)
            aspect = math.exp(random.uniform(bound, -bound))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if not (0 < height < rows and 0 < width < columns):
                continue
            top, left = random.randint(0, rows - height), random.randint(0, columns - width)
            block = mask[top : top + height, left : left + width]
            new = height * width - int(block.sum())
            if 0 < new <= wanted:
                block.fill_(True)
                return new
        return 0
