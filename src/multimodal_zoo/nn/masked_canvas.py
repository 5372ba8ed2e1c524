"""Pictures on a square canvas with a mask of what is picture: the inputs of EVE v1, cut out of what surrounds them.

A layer that reads the whole canvas computes on its border too; only the picture is cut into cells here.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from multimodal_zoo.nn.patch_cells import PatchCells, cut

#: First row, first column, rows and columns, in patches.
Box = tuple[int, int, int, int]
#: Patches per side that are read of a canvas without a picture.
BLANK = 16


def valid_box(mask: Tensor, patch: int) -> Box | None:
    """The patches of a canvas that show the picture; None where none do.

    Args:
        mask: (height, width), 1 on the picture and 0 around it.
        patch: side of a patch, in pixels; what is beyond the last whole patch is left out.

    Raises:
        ValueError: patches that are picture in part only, or pictures that are no rectangle.
    """
    shares = F.avg_pool2d(mask[None].float(), patch)[0]
    inside = shares == 1
    if bool((~inside & (shares != 0)).any()):
        raise ValueError(
            f"a mask of {tuple(mask.shape)} pixels cuts through patches of {patch}: it must be 0 or 1 on all of a patch"
        )
    rows, columns = (inside.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        return None
    box = (rows[0], columns[0], rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    if int(inside.sum()) != box[2] * box[3]:
        raise ValueError(f"a mask of {tuple(mask.shape)} pixels is no rectangle within {box[2]} x {box[3]} patches")
    return box


def picture_of(canvas: Tensor, patch: int) -> Tensor:
    """The picture on a canvas, (3, height, width).

    Args:
        canvas: (4, height, width): three channels and the mask. Where the mask is empty, the `BLANK` x `BLANK` patches
            at the top left are the picture.
        patch: side of a patch, in pixels.

    Raises:
        ValueError: no canvas, or a mask that is no rectangle of whole patches.
    """
    if canvas.dim() != 3 or canvas.shape[0] != 4:
        raise ValueError(f"canvas of shape {tuple(canvas.shape)}; expected (4, height, width), the mask last")
    top, left, rows, columns = valid_box(canvas[3], patch) or (0, 0, BLANK, BLANK)
    high, wide = (min(part, side // patch) for part, side in zip((rows, columns), canvas.shape[1:], strict=True))
    top, left, high, wide = (part * patch for part in (top, left, high, wide))
    return canvas[:3, top : top + high, left : left + wide]


def cells_of_canvas(canvas: Tensor, patch: int, window: int) -> PatchCells:
    """The picture on a canvas as cells; see `picture_of` and `cut`."""
    return cut(picture_of(canvas, patch), patch, window)
