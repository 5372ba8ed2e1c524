"""EVE's second image transform: pictures keep their shape, and their area is bounded or set."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from multimodal_zoo.data.eve_images import (
    CellPixels,
    Geometry,
    cell_tokens,
    check_shape,
    up_to_cells,
    whole_cells,
)
from multimodal_zoo.data.pictures import AnyPicture, Background
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.registry import DATASETS

#: `training` shrinks large pictures and rounds to the nearest cells; `inference` brings all to one area and rounds up.
RULES = ("training", "inference")


def bounded(height: int, width: int, cell: int, smallest: int | None, largest: int | None) -> tuple[int, int] | None:
    """Height and width in whole cells whose area keeps bounds in pixels; None where the given one does already."""
    area = height * width
    if largest is not None and area > largest:
        scale = math.sqrt(largest / area)
        high, wide = (max(1, math.floor(side * scale / cell)) * cell for side in (height, width))
        return high, wide
    if smallest is not None and area < smallest:
        scale = math.sqrt(smallest / area)
        return up_to_cells(height * scale, cell), up_to_cells(width * scale, cell)
    return None


@DATASETS.register_module(name="eve_area_transform")
class EveAreaTransform(CellPixels):
    """Pictures as EVE v2 reads them (arXiv 2502.06788, published code): no canvas, sides in whole cells.

    The published code has two rules: in training it only makes pictures smaller, at inference it brings each to about
    `max_size` squared, small ones too, so that every picture costs as many tokens. The published figures were measured
    so; `inference_rule: training` makes small pictures cheap, and bounds set a budget.

    Args:
        max_size: square root of the area in pixels: 1600, and 800 in the first stages.
        patch: side of a patch: 16.
        window: side of a cell, in patches: 2.
        mean: of red, green and blue, in units where white is 1.
        std: of red, green and blue.
        inference_rule: one of `RULES`, the rule at inference; training has its own.
        min_pixels: least area at inference; None for none. Where the rule's area is below, sides are rounded up.
        max_pixels: greatest area at inference, kept exactly unless a side is one cell; None for none.
        ratio: greatest ratio of the longer to the shorter side; None takes any, as published.
        background: red, green and blue (0 to 255) behind transparent pixels; None drops alpha, as published.

    Raises:
        ValueError: an unknown rule, or bounds that no size keeps.
    """

    def __init__(
        self,
        max_size: int,
        patch: int,
        window: int,
        mean: Sequence[float],
        std: Sequence[float],
        inference_rule: str = "inference",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        ratio: float | None = None,
        background: Background = None,
    ) -> None:
        super().__init__(patch, window, mean, std, ratio, background)
        if inference_rule not in RULES:
            raise ValueError(f"processor.images.inference_rule is {inference_rule!r}; it must be {' or '.join(RULES)}")
        least, most = min_pixels or 0, math.inf if max_pixels is None else max_pixels
        if max_size < 1 or not 0 <= least <= most or most < (patch * window) ** 2:
            raise ValueError(
                f"processor.images: max_size {max_size}, min_pixels {min_pixels}, max_pixels {max_pixels}; expected a "
                f"size of at least 1, and bounds in order with room for one cell of {(patch * window) ** 2} pixels"
            )
        self.max_size, self.inference_rule = max_size, inference_rule
        self.min_pixels, self.max_pixels = min_pixels, max_pixels

    def size(self, height: int, width: int, training: bool) -> tuple[int, int]:
        """Height and width that a picture of a size is brought to.

        Raises:
            UnfitPictureError: no area, or sides of too different lengths.
        """
        check_shape(height, width, self.ratio)
        cell = self.patch * self.window
        ratio = math.sqrt(width * height) / self.max_size
        if training or self.inference_rule == "training":
            ratio = max(ratio, 1.0)
            high, wide = whole_cells(height / ratio, cell), whole_cells(width / ratio, cell)
        else:
            high, wide = up_to_cells(height / ratio, cell), up_to_cells(width / ratio, cell)
        if training:
            return high, wide
        kept = bounded(high, wide, cell, self.min_pixels, self.max_pixels)
        return (high, wide) if kept is None else kept

    def preview(self, height: int, width: int, training: bool = False) -> Geometry:
        """What becomes of a picture of a size.

        Raises:
            UnfitPictureError: no area, or sides of too different lengths.
        """
        size = self.size(height, width, training)
        grid = (size[0] // (self.patch * self.window), size[1] // (self.patch * self.window))
        return Geometry(size, size, (0, 0), grid, cell_tokens(grid), None)

    def teacher(self, picture: AnyPicture) -> tuple[Tensor, Box]:
        """EVE v2 has no teacher.

        Raises:
            ValueError: always, with the way out.
        """
        raise ValueError(
            "data.teacher: eve_area_transform has no rule for a teacher's picture (EVE v2 learns without one): set "
            "data.teacher=false, or processor.images.type=eve_image_transform"
        )

    def blank(self) -> Tensor:
        """The placeholder of a sample without picture in the published code: one cell of the mean colour."""
        side = self.patch * self.window
        return self.plain(side, side)
