"""Pictures of any sizes as one block of patches, cut into the cells that become one token each.

Layers that read whole pictures would run once for each size; over cells they are one matrix product for a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multimodal_zoo.nn.movable import moved, pinned

#: Rows and columns of cells.
Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PatchCells:
    """Pictures cut into cells of `window` x `window` patches.

    Attributes:
        pixels: float (cells, window^2, 3 * patch^2): the cells of all pictures, each picture's row by row; in a patch
            the channels come first.
        grids: rows and columns of cells of each picture.
        patch: side of a patch, in pixels.
        window: side of a cell, in patches.

    Raises:
        ValueError: grids that do not add up to the cells, or pixels of another shape.
    """

    to, pin_memory = moved, pinned

    pixels: Tensor
    grids: tuple[Grid, ...]
    patch: int
    window: int

    def __post_init__(self) -> None:
        cells = sum(rows * columns for rows, columns in self.grids)
        wanted = (cells, self.window**2, 3 * self.patch**2)
        if tuple(self.pixels.shape) != wanted:
            raise ValueError(f"PatchCells of grids {list(self.grids)} need pixels {wanted}, not {self.pixels.shape}")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.grids)

    @property
    def sizes(self) -> list[int]:
        """Cells of each picture."""
        return [rows * columns for rows, columns in self.grids]

    @property
    def tokens(self) -> list[int]:
        """Tokens of each picture: a class token, and each row of cells closed by a split token."""
        return [1 + rows * (columns + 1) for rows, columns in self.grids]

    def images(self) -> list[Tensor]:
        """The pictures again, each (3, height, width)."""
        found = []
        for part, (rows, columns) in zip(self.pixels.split(self.sizes), self.grids, strict=True):
            cut = part.reshape(rows, columns, self.window, self.window, 3, self.patch, self.patch)
            side = self.window * self.patch
            found.append(cut.permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * side, columns * side))
        return found


def cut(image: Tensor, patch: int, window: int) -> PatchCells:
    """One picture as cells; what is beyond the last whole cell is left out.

    Args:
        image: (3, height, width).
        patch: side of a patch, in pixels.
        window: side of a cell, in patches.

    Raises:
        ValueError: no picture of three channels, or one smaller than a cell.
    """
    side = patch * window
    if image.dim() != 3 or image.shape[0] != 3 or min(image.shape[1:]) < side:
        raise ValueError(
            f"picture of shape {tuple(image.shape)}; expected (3, height, width) of at least {side} pixels"
        )
    rows, columns = image.shape[1] // side, image.shape[2] // side
    whole = image[:, : rows * side, : columns * side].reshape(3, rows, window, patch, columns, window, patch)
    pixels = whole.permute(1, 4, 2, 5, 0, 3, 6).reshape(rows * columns, window**2, 3 * patch**2)
    return PatchCells(pixels, ((rows, columns),), patch, window)


def joined(pictures: Sequence[PatchCells]) -> PatchCells:
    """Several pictures, or several lists of them, as one.

    Raises:
        ValueError: none, or pictures that are cut in different ways.
    """
    ways = {(one.patch, one.window) for one in pictures}
    if len(ways) != 1:
        raise ValueError(f"pictures to join are cut with (patch, window) {sorted(ways)}; expected one way")
    ((patch, window),) = ways
    grids = tuple(grid for one in pictures for grid in one.grids)
    return PatchCells(torch.cat([one.pixels for one in pictures]), grids, patch, window)


def rows_closed(cells: Tensor, grids: Sequence[Grid], class_token: Tensor, split: Tensor) -> Tensor:
    """Tokens of pictures in reading order: a class token, then each row of cells followed by the split token.

    Args:
        cells: (cells, width), of all pictures.
        grids: rows and columns of each.
        class_token: (pictures, width), or (width,) for the same in front of all.
        split: (width,).

    Returns:
        (tokens, width), 1 + rows * (columns + 1) for each picture.
    """
    first = class_token.expand(len(grids), -1)
    parts = []
    for number, (part, (rows, columns)) in enumerate(
        zip(cells.split([rows * columns for rows, columns in grids]), grids, strict=True)
    ):
        lines = part.reshape(rows, columns, -1)
        closed = torch.cat((lines, split.to(lines.dtype).expand(rows, 1, -1)), 1).flatten(0, 1)
        parts += [first[number : number + 1].to(lines.dtype), closed]
    return torch.cat(parts) if parts else cells
