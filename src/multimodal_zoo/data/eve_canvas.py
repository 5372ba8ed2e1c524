"""EVE's first image transform: the long side fills a canvas, the short side whole patches of the teacher's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from multimodal_zoo.data.eve_images import CellPixels, Geometry, cell_tokens, check_shape
from multimodal_zoo.data.pictures import AnyPicture, Background
from multimodal_zoo.nn.masked_canvas import Box
from multimodal_zoo.registry import DATASETS


@DATASETS.register_module(name="eve_image_transform")
class EveImageTransform(CellPixels):
    """Pictures as EVE v1 reads them (arXiv 2406.11832, published code).

    At the teacher's resolution the long side fills the teacher's square and the short side is rounded up to whole
    patches of it; the student's picture is that, a whole number of times finer. Small pictures are enlarged. The
    student reads the picture alone; the teacher reads its square, filled around the picture with the mean colour.

    Args:
        image_size: the long side, in pixels: 672, and 1344 of the HD version.
        teacher_size: side of the teacher's square: 336.
        teacher_patch: side of the teacher's patches: 14.
        patch: side of a patch of the student: 14.
        window: side of a cell, in patches: 2.
        mean: of red, green and blue, in units where white is 1.
        std: of red, green and blue.
        ratio: greatest ratio of the longer to the shorter side; None takes any, as published.
        background: red, green and blue (0 to 255) behind transparent pixels; None drops alpha, as published.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    def __init__(
        self,
        image_size: int,
        teacher_size: int,
        teacher_patch: int,
        patch: int,
        window: int,
        mean: Sequence[float],
        std: Sequence[float],
        ratio: float | None = None,
        background: Background = None,
    ) -> None:
        super().__init__(patch, window, mean, std, ratio, background)
        if teacher_patch < 1 or teacher_size % teacher_patch or image_size < 1 or image_size % teacher_size:
            raise ValueError(
                f"processor.images: image_size {image_size} must be a multiple of teacher_size {teacher_size}, and "
                f"that one of teacher_patch {teacher_patch}"
            )
        self.image_size, self.teacher_size, self.teacher_patch = image_size, teacher_size, teacher_patch

    def _box(self, height: int, width: int) -> Box:
        check_shape(height, width, self.ratio)
        whole = self.teacher_size // self.teacher_patch
        short = min(height, width)
        filled = math.ceil(self.teacher_size * short / max(height, width) / self.teacher_patch)  # in this order
        before = (whole - filled) // 2
        return (before, 0, filled, whole) if width > height else (0, before, whole, filled)

    def preview(self, height: int, width: int, training: bool = False) -> Geometry:
        """What becomes of a picture of a size; training and inference have one rule.

        Raises:
            UnfitPictureError: no area, or sides of too different lengths.
        """
        del training
        box = self._box(height, width)
        unit = self.teacher_patch * (self.image_size // self.teacher_size)
        top, left, high, wide = (part * unit for part in box)
        grid = (high // (self.patch * self.window), wide // (self.patch * self.window))
        return Geometry((high, wide), (self.image_size,) * 2, (top, left), grid, cell_tokens(grid), box)

    def canvas(self, picture: AnyPicture) -> Tensor:
        """A picture as the published code passes it on: float (4, side, side), the last channel 1 on the picture."""
        image = self.open(picture)
        found = self.preview(image.height, image.width)
        return self._placed(self.resized(image, found.size), found.place, self.image_size)

    def teacher_canvas(self, picture: AnyPicture) -> Tensor:
        """The same for the teacher, made from the picture itself and not from the student's."""
        image = self.open(picture)
        top, left, high, wide = (part * self.teacher_patch for part in self._box(image.height, image.width))
        return self._placed(self.resized(image, (high, wide)), (top, left), self.teacher_size)

    def teacher(self, picture: AnyPicture) -> tuple[Tensor, Box]:
        """What a teacher sees of it: float (3, side, side), and which of its patches show the picture."""
        image = self.open(picture)
        return self.teacher_canvas(image)[:3], self._box(image.height, image.width)

    def blank(self, size: int) -> Tensor:
        """The canvas of a sample without picture in the published code, (4, size, size): colour, and no picture."""
        return torch.cat((self.plain(size, size), torch.zeros(1, size, size)))

    def _placed(self, pixels: Tensor, place: tuple[int, int], side: int) -> Tensor:
        canvas = self.blank(side).clone()
        part = [slice(start, start + length) for start, length in zip(place, pixels.shape[1:], strict=True)]
        canvas[:3, part[0], part[1]] = pixels
        canvas[3, part[0], part[1]] = 1
        return canvas
