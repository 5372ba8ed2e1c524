"""Pictures for EVE: of their own shape, in whole cells, with the published rules for their size.

The first version brings the long side to a canvas and keeps the picture's rectangle of it; the second keeps the area.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multimodal_zoo.data.pictures import AnyPicture, Background, listed_pictures, load, open_picture, to_rgb
from multimodal_zoo.data.size_rule import UnfitPictureError
from multimodal_zoo.data.transforms import INTERPOLATIONS, colour, normalised, to_tensor
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.nn.patch_cells import PatchCells, cut


class Geometry(NamedTuple):
    """What becomes of a picture of some size, without looking at one.

    Attributes:
        size: height and width that the picture is resized to.
        canvas: height and width of what surrounds it; the size itself where nothing does.
        place: top and left of the picture on its canvas, in pixels.
        grid: rows and columns of cells.
        tokens: places in a sequence: 1 + rows * (columns + 1).
        box: valid patches of what a teacher sees; None where there is no rule for a teacher.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    place: tuple[int, int]
    grid: tuple[int, int]
    tokens: int
    box: Box | None


class EveImages(Protocol):
    """An image transform of EVE.

    Attributes:
        patch: side of a patch, in pixels.
        window: side of a cell, in patches.
    """

    patch: int
    window: int

    def preview(self, height: int, width: int, training: bool = False) -> Geometry:
        """What becomes of a picture of a size; `training` where that has a rule of its own."""
        ...

    def cells(self, picture: AnyPicture, training: bool = False) -> PatchCells:
        """One picture, normalised and cut into cells."""
        ...

    def teacher(self, picture: AnyPicture) -> tuple[Tensor, Box]:
        """What a teacher sees of it: float (3, side, side), and which of its patches show the picture."""
        ...


def check_shape(height: int, width: int, ratio: float | None) -> None:
    """Refuse sizes that no picture has.

    Raises:
        UnfitPictureError: no pixels, or sides of too different lengths.
    """
    if min(height, width) < 1:
        raise UnfitPictureError(f"a picture of {width} x {height} pixels has no area")
    found = max(height, width) / min(height, width)
    if ratio is not None and found > ratio:
        raise UnfitPictureError(
            f"a picture of {width} x {height} pixels: the sides are as {found:.4g} to 1, at most {ratio:g} to 1 is "
            "allowed (processor.images.ratio)"
        )


def cell_tokens(grid: tuple[int, int]) -> int:
    """Places that a picture of rows and columns of cells takes: a class token, and rows closed by a split token."""
    return 1 + grid[0] * (grid[1] + 1)


class CellPixels(ABC):
    """What both transforms share: all but the size that a picture is brought to.

    Args:
        patch: side of a patch, in pixels.
        window: side of a cell, in patches.
        mean: of red, green and blue, in units where white is 1.
        std: of red, green and blue.
        ratio: greatest ratio of the longer to the shorter side; None takes any.
        background: red, green and blue (0 to 255) behind transparent pixels; None drops alpha.

    Raises:
        ValueError: sizes below 1.
    """

    def __init__(
        self,
        patch: int,
        window: int,
        mean: Sequence[float],
        std: Sequence[float],
        ratio: float | None,
        background: Background,
    ) -> None:
        if patch < 1 or window < 1 or (ratio is not None and ratio < 1):
            raise ValueError(
                f"processor.images: patch {patch}, window {window}, ratio {ratio}; expected sizes of at least 1 and a "
                "ratio of at least 1, or null"
            )
        self.patch, self.window, self.ratio = patch, window, ratio
        self.background = colour(background, "processor.images.background")
        self.mean = torch.tensor(list(mean), dtype=torch.float32)
        self.std = torch.tensor(list(std), dtype=torch.float32)
        #: Red, green and blue around a picture, as published: fractions dropped, so that it is nearly 0 normalised.
        self.colour = tuple(int(255 * value) for value in mean)

    def open(self, picture: AnyPicture) -> Image.Image:
        """A picture of any mode as RGB with pixels.

        Raises:
            UnfitPictureError: an array without pixels.
            UnusableError: a file that cannot be read, or a picture without pixels.
        """
        if isinstance(picture, np.ndarray) and not picture.size:
            check_shape(picture.shape[0], picture.shape[1], self.ratio)
        return to_rgb(load(open_picture(picture)), self.background)

    @abstractmethod
    def preview(self, height: int, width: int, training: bool = False) -> Geometry:
        """What becomes of a picture of a size.

        Raises:
            UnfitPictureError: no area, or sides of too different lengths.
        """

    def pixels(self, picture: AnyPicture, training: bool = False) -> Tensor:
        """One picture as float (3, height, width), without what may surround it.

        Raises:
            UnfitPictureError: see `preview`.
            UnusableError: a file that cannot be read, or a picture without pixels.
        """
        image = self.open(picture)
        return self.resized(image, self.preview(image.height, image.width, training).size)

    def cells(self, picture: AnyPicture, training: bool = False) -> PatchCells:
        """One picture, normalised and cut into cells; raises as `pixels`."""
        return cut(self.pixels(picture, training), self.patch, self.window)

    def __call__(self, pictures: Sequence[AnyPicture]) -> list[Tensor]:
        """Each picture as float (3, height, width), by the rule of inference.

        Raises:
            TypeError: one picture in place of a list.
            UnfitPictureError, UnusableError: see `pixels`.
        """
        return [self.pixels(picture) for picture in listed_pictures(pictures)]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Float (..., 3, height, width) from uint8 of the same shape."""
        return normalised(pixels, self.mean, self.std)

    def resized(self, image: Image.Image, size: tuple[int, int]) -> Tensor:
        """A picture brought to a height and width as 8-bit values (bicubic), then normalised: (3, height, width)."""
        if image.size != size[::-1]:
            image = image.resize(size[::-1], INTERPOLATIONS["bicubic"])
        return self.normalise(to_tensor(image))

    def plain(self, height: int, width: int) -> Tensor:
        """The colour around pictures, normalised: (3, height, width)."""
        return self.normalise(torch.tensor(self.colour, dtype=torch.uint8).view(3, 1, 1)).expand(3, height, width)


def whole_cells(side: float, cell: int) -> int:
    """A side rounded to a multiple of the cell, halves to even, one cell at least."""
    return max(1, round(side / cell)) * cell


def up_to_cells(side: float, cell: int) -> int:
    """A side rounded up to a multiple of the cell."""
    return max(1, math.ceil(side / cell)) * cell
