"""What an anchor head says, as maps and as rows."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class HeadMaps(NamedTuple):
    """Maps of an anchor head; rows are y and columns x, and channels count anchors first: `anchor * numbers + number`.

    Attributes:
        classes: (batch, anchors * classes, rows, columns), logits.
        boxes: (batch, anchors * code_size, rows, columns), differences from anchors.
        directions: (batch, anchors * 2, rows, columns), logits of the halves of the yaw; None without them.
    """

    classes: Tensor
    boxes: Tensor
    directions: Tensor | None

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.classes.shape[-2], self.classes.shape[-1]


class HeadRows(NamedTuple):
    """The same by anchor, in the order of `AnchorGrid.boxes`.

    Attributes:
        classes: (batch, anchors of the map, classes).
        boxes: (batch, anchors of the map, code_size).
        directions: (batch, anchors of the map, 2), or None.
    """

    classes: Tensor
    boxes: Tensor
    directions: Tensor | None


def head_rows(maps: HeadMaps, per_cell: int) -> HeadRows:
    """Maps as rows of anchors.

    Args:
        maps: of a head.
        per_cell: number of anchors of a cell.
    """
    directions = None if maps.directions is None else _rows(maps.directions, per_cell)
    return HeadRows(_rows(maps.classes, per_cell), _rows(maps.boxes, per_cell), directions)


def _rows(maps: Tensor, per_cell: int) -> Tensor:
    return maps.permute(0, 2, 3, 1).unflatten(-1, (per_cell, -1)).flatten(1, 3)
